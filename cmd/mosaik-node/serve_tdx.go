package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/conf"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

// The settings of attestation: which quotes the node asks the other members for, and how
// it makes its own.

// checkTDX says what is wrong with them.
func (s *settings) checkTDX(bad func(name string, err error) error) error {
	if s.tdxPolicy == "" {
		for name, set := range map[string]bool{
			"tdx-collateral": s.tdxCollateral != "", "tdx-pccs": s.tdxPCCS != "", simulatedFlag: s.simulateTDX,
		} {
			if set {
				return bad(name, errors.New("it is about quotes, but none is asked for; that needs a tdx-policy"))
			}
		}
	}
	if s.simulatedMRTD != "" {
		if !s.simulateTDX {
			return bad("insecure-simulated-mrtd", errors.New("it can be chosen only with "+simulatedFlag))
		}
		if _, err := tdx.ParseMeasurement(s.simulatedMRTD); err != nil {
			return bad("insecure-simulated-mrtd", err)
		}
	}
	return nil
}

// attestation is what a node that asks for quotes, and has one of its own, keeps open.
type attestation struct {
	cache  *tdx.Cache
	holder *tdx.Holder
}

// close ends it; nil has ended.
func (a *attestation) close() (err error) {
	if a == nil {
		return nil
	}
	if a.holder != nil {
		err = a.holder.Close()
	}
	return errors.Join(err, a.cache.Close())
}

// attest adds to the options what the node asks for, and puts its own ticket into the
// wallet: now, and again in time before each ends.
func (s *settings) attest(logger *slog.Logger, o *mosaik.PeerOptions, shown *wallet) (_ *attestation, err error) {
	if s.tdxPolicy == "" {
		return nil, nil
	}
	root, fetch, quoter, err := s.platform()
	if err != nil {
		return nil, err
	}
	text, err := readFileBounded(s.tdxPolicy, maxPolicy)
	if err != nil {
		return nil, fmt.Errorf("%w: tdx-policy: %w", conf.ErrConfig, err)
	}
	policy, err := parsePolicy(text, root)
	if err != nil {
		return nil, fmt.Errorf("%w: tdx-policy: %s: %w", conf.ErrConfig, s.tdxPolicy, err)
	}
	if s.tdxCollateral != "" {
		if err := os.MkdirAll(s.tdxCollateral, 0o777); err != nil {
			return nil, fmt.Errorf("%w: tdx-collateral: %w", conf.ErrConfig, err)
		}
	}
	a := new(attestation)
	if a.cache, err = tdx.OpenCache(tdx.CacheOptions{Root: root, Fetch: fetch, Dir: s.tdxCollateral, Logger: logger}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	validator, err := tdx.NewValidator(policy, tdx.NewChecker(a.cache, tdx.CheckerOptions{}))
	if err != nil {
		return nil, err
	}
	o.Clauses = append(o.Clauses, identity.Require(validator))
	a.holder, err = tdx.OpenHolder(quoter, tdx.HolderOptions{
		Peer: o.Key.PeerID(), Network: identity.NewID(o.Network), Lifetime: policy.MaxLifetime, Logger: logger,
		Install: func(class identity.ID, data []byte) {
			if _, err := shown.put(&shown.quoted, []identity.Ticket{{Class: class, Data: data}}); err != nil {
				logger.Error("the node cannot show its quote", "err", err)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	id := policy.ID()
	if root.Simulated() {
		logger.Warn("attestation is SIMULATED and proves nothing", "policy", id.String(), "root", root.String())
	} else {
		logger.Info("members need a quote", "policy", id.String(), "root", root.String())
	}
	return a, nil
}

// platform returns the root of trust, where collateral comes from, and who makes the
// node's own quotes.
func (s *settings) platform() (root tdx.Root, fetch tdxFetch, quoter tdx.Quoter, err error) {
	if s.simulateTDX {
		authority, err := simulation()
		if err != nil {
			return root, nil, nil, err
		}
		var td simulated.TD
		if s.simulatedMRTD != "" {
			if td.MRTD, err = tdx.ParseMeasurement(s.simulatedMRTD); err != nil {
				return root, nil, nil, err
			}
		}
		return authority.Root(), authority.Fetch(func() simulated.Statement {
			return simulated.Statement{Issued: time.Now().Add(-time.Hour)}
		}), authority.Quoter(td), nil
	}
	fetch, err = tdx.HTTPFetch(&http.Client{Timeout: 30 * time.Second}, s.tdxPCCS)
	if err != nil {
		return root, nil, nil, fmt.Errorf("%w: tdx-pccs: %w", conf.ErrConfig, err)
	}
	guest, err := tdx.OpenGuest()
	if err != nil {
		return root, nil, nil, err
	}
	return tdx.IntelRoot(), fetch, guest, nil
}
