package tdx

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"
	"github.com/google/go-configfs-tsm/rtmr"

	"github.com/mosaik-engine/mosaik/identity"
)

// ErrUnavailable reports that the program does not run in a TD that can make quotes.
// The error that wraps it says what is missing.
var ErrUnavailable = errors.New("tdx: not available on this machine")

// provider is what Linux calls the driver of TDX guests.
const provider = "tdx_guest"

// Guest is the TD that the program runs in, through Linux's configfs-tsm (kernel 6.7 or
// later, /sys/kernel/config/tsm). It may be used from many goroutines.
type Guest struct {
	client configfsi.Client
}

// OpenGuest finds the interface. It makes no quote; see Available. The error wraps
// [ErrUnavailable].
func OpenGuest() (*Guest, error) {
	client, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, fmt.Errorf("%w: %w; it takes a TD with Linux 6.7 or later and configfs mounted", ErrUnavailable, err)
	}
	return &Guest{client: client}, nil
}

// Available makes a quote, which is the only test that means something. The error
// wraps [ErrUnavailable].
func (g *Guest) Available() error {
	_, err := g.Quote([64]byte{})
	return err
}

// Quote implements [Quoter]. The host's quoting service answers it, so it takes as long
// as that wants. The error wraps [ErrUnavailable].
func (g *Guest) Quote(reportData [64]byte) ([]byte, error) {
	answer, err := report.Get(g.client, &report.Request{InBlob: reportData[:]})
	if err != nil {
		return nil, fmt.Errorf("%w: configfs-tsm: %w", ErrUnavailable, err)
	}
	if name := strings.TrimSpace(answer.Provider); name != provider {
		return nil, fmt.Errorf("%w: the provider of reports is %q, want %q", ErrUnavailable, name, provider)
	}
	return answer.OutBlob, nil
}

// LocalMeasurements reads the registers of the TD from a quote over zeros: what a policy
// for peers of the same image names. They are as true as the machine the program runs
// on, which proves nothing to itself.
func LocalMeasurements(quoter Quoter) (Measurements, error) {
	raw, err := quoter.Quote([64]byte{})
	if err != nil {
		return Measurements{}, err
	}
	q, err := ParseQuote(raw)
	if err != nil {
		return Measurements{}, err
	}
	return q.Measurements, nil
}

// RuntimeDigest is what a node measures into RTMR3 before it serves, so that a policy
// can pin what runs in an image and not the image alone:
//
//	SHA-384("mosaik rtmr3 v1" || config || group || binary)
//
// with the digests of the configuration and of the program's file.
func RuntimeDigest(config, group, binary identity.ID) Measurement {
	preimage := []byte("mosaik rtmr3 v1")
	for _, part := range []identity.ID{config, group, binary} {
		preimage = append(preimage, part[:]...)
	}
	return sha512.Sum384(preimage)
}

// Extend returns what a register holds after a digest was measured into it:
// SHA-384(register || digest).
func (m Measurement) Extend(digest Measurement) Measurement {
	return sha512.Sum384(append(m[:], digest[:]...))
}

// ExtendRTMR3 measures a digest into RTMR3. It cannot be undone before the TD restarts.
// The error wraps [ErrUnavailable].
func (g *Guest) ExtendRTMR3(digest Measurement) error {
	if err := rtmr.ExtendDigest(g.client, 3, digest[:]); err != nil {
		return fmt.Errorf("%w: extend RTMR3: %w", ErrUnavailable, err)
	}
	return nil
}
