package catalog

import (
	"context"
	"encoding/base32"
	"fmt"
	"net"
	"strings"

	"github.com/mosaik-engine/mosaik/identity"
)

// Static returns a bootstrap (Options.Bootstrap) of the given seeds.
func Static(seeds ...Seed) func(context.Context) []Seed {
	return func(context.Context) []Seed { return seeds }
}

// Together returns a bootstrap that asks several.
func Together(all ...func(context.Context) []Seed) func(context.Context) []Seed {
	return func(ctx context.Context) (seeds []Seed) {
		for _, ask := range all {
			seeds = append(seeds, ask(ctx)...)
		}
		return seeds
	}
}

// service is what a domain's seeds are looked up as: _mosaik._tcp (RFC 2782).
const service, transport = "mosaik", "tcp"

// DNS returns a bootstrap that asks a name server for the SRV records of
// _mosaik._tcp.domain. A connection is made with a peer, not with an address, so each
// target begins with a label that names the peer ([PeerLabel]); its A and AAAA records
// say where that is:
//
//	_mosaik._tcp.prices.example.  SRV  0 0 7072 <label>.prices.example.
//	<label>.prices.example.       A    192.0.2.7
//
// Targets without such a label are left out. failed, which may be nil, is told why a
// lookup failed; the next one comes by itself.
func DNS(r *net.Resolver, domain string, failed func(error)) func(context.Context) []Seed {
	return func(ctx context.Context) (seeds []Seed) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		_, records, err := r.LookupSRV(ctx, service, transport, domain)
		if err != nil && failed != nil && ctx.Err() == nil {
			failed(fmt.Errorf("mosaik: catalog: seeds of %s: %w", domain, err))
		}
		for _, srv := range records {
			target := strings.TrimSuffix(srv.Target, ".")
			label, _, _ := strings.Cut(target, ".")
			peer, err := parsePeerLabel(label)
			if err != nil {
				continue
			}
			seeds = append(seeds, Seed{peer, []string{net.JoinHostPort(target, fmt.Sprint(srv.Port))}})
		}
		return seeds
	}
}

func labels() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }

// PeerLabel returns a peer as a label of a domain name: 52 letters and digits of lower
// case, base32 of RFC 4648 without padding. (Its text form is one too long for a label.)
func PeerLabel(p identity.PeerID) string { return strings.ToLower(labels().EncodeToString(p[:])) }

func parsePeerLabel(label string) (identity.PeerID, error) {
	b, err := labels().DecodeString(strings.ToUpper(label))
	if err != nil || len(b) != identity.Size {
		return identity.PeerID{}, fmt.Errorf("%q is not the label of a peer", label)
	}
	return identity.PeerID(b), nil
}
