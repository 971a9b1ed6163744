package tdx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Quoter makes quotes of the TD that the program runs in: [Guest] on hardware,
// simulated.Quoter without.
type Quoter interface {
	// Quote returns a fresh quote over 64 bytes of report data.
	Quote(reportData [64]byte) ([]byte, error)
}

// DefaultLifetime and MaxLifetime are the lifetimes of own tickets. None lasts for
// ever: an attestation of long ago tells nothing.
const (
	DefaultLifetime = time.Hour
	MaxLifetime     = 24 * time.Hour
)

// HolderOptions say whose tickets a [Holder] makes.
type HolderOptions struct {
	Peer      identity.PeerID
	Network   identity.ID
	StartedAt time.Time // when the peer started; zero: now

	// Lifetime of a ticket, whole seconds, at most MaxLifetime. 0: DefaultLifetime.
	Lifetime time.Duration

	// Install is given every new ticket, in the place of the one before. It is called
	// from one goroutine at a time and must not call Close.
	Install func(class identity.ID, data []byte)

	// Logger is told of renewals that fail. Nil: nobody is.
	Logger *slog.Logger
}

// ErrHolder reports options that make no ticket.
var ErrHolder = errors.New("tdx: invalid ticket holder")

// Holder keeps a peer's own v1 ticket fresh: a new one is made when two thirds of the
// lifetime of the last are over. Close it after use.
type Holder struct {
	opts   HolderOptions
	quoter Quoter
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// OpenHolder makes and installs the first ticket, and from then on its successors. The
// error wraps [ErrHolder] or is the quoter's.
func OpenHolder(quoter Quoter, opts HolderOptions) (*Holder, error) {
	switch {
	case opts.Lifetime == 0:
		opts.Lifetime = DefaultLifetime
	case opts.Lifetime < time.Second || opts.Lifetime > MaxLifetime || opts.Lifetime%time.Second != 0:
		return nil, fmt.Errorf("%w: lifetime %v, want whole seconds up to %v", ErrHolder, opts.Lifetime, MaxLifetime)
	}
	if opts.Peer.IsZero() || opts.Network.IsZero() || opts.Install == nil {
		return nil, fmt.Errorf("%w: peer, network and install must be set", ErrHolder)
	}
	if opts.StartedAt.IsZero() {
		opts.StartedAt = time.Now()
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Holder{opts: opts, quoter: quoter}
	if err := h.renew(); err != nil {
		return nil, err
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.done.Add(1)
	go h.runRenewal()
	return h, nil
}

// Close ends the renewal and waits for it. The last ticket stays installed until it
// expires.
func (h *Holder) Close() error {
	h.cancel()
	h.done.Wait()
	return nil
}

// renew makes a ticket and installs it.
func (h *Holder) renew() error {
	now := time.Now().UTC().Truncate(time.Second)
	t := &Ticket{Peer: h.opts.Peer, Network: h.opts.Network, StartedAt: h.opts.StartedAt, QuotedAt: now, Expires: now.Add(h.opts.Lifetime)}
	if err := t.Attest(h.quoter); err != nil {
		return err
	}
	data, err := t.Encode()
	if err != nil {
		return err
	}
	h.opts.Install(t.Class(), data)
	return nil
}

// runRenewal renews at two thirds of the lifetime, and after a failure every
// thirtieth, which leaves ten attempts before the ticket expires.
func (h *Holder) runRenewal() {
	defer h.done.Done()
	due, again := h.opts.Lifetime*2/3, max(h.opts.Lifetime/30, 100*time.Millisecond)
	timer := time.NewTimer(due)
	defer timer.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-timer.C:
			next := due
			if err := h.renew(); err != nil {
				h.opts.Logger.Warn("TDX ticket was not renewed", "err", err)
				next = again
			}
			timer.Reset(next)
		}
	}
}

// Attest has a quoter quote the ticket's fields, and sets Quote. It refuses a quote
// that does not carry them: a quoter that is broken is found here, not by the peers.
func (t *Ticket) Attest(quoter Quoter) error {
	raw, err := quoter.Quote(t.ReportData())
	if err != nil {
		return fmt.Errorf("tdx: make a quote: %w", err)
	}
	q, err := ParseQuote(raw)
	if err != nil {
		return fmt.Errorf("tdx: make a quote: %w", err)
	}
	if q.ReportData != t.ReportData() {
		return fmt.Errorf("tdx: make a quote: %w: the quoter has bound other report data", ErrQuote)
	}
	t.Quote = raw
	return nil
}
