package tdx

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// ErrBusy reports that so many quotes wait to be verified that one more is not let in.
var ErrBusy = errors.New("tdx: too many quotes wait to be verified; try again later")

// CheckerOptions bound what a [Checker] does at once.
type CheckerOptions struct {
	// Workers is how many quotes are verified at once, at about 2 ms each. Default:
	// half of the processors, at least 1, so that a flood of quotes leaves the others
	// to the log.
	Workers int

	// Waiting is how many more may wait; beyond it, ErrBusy. Default: 64.
	Waiting int

	// Verdicts is how many tickets' evidence is remembered. Default: 4096.
	Verdicts int
}

// Checker verifies quotes at the edge: bounded in number, with the collateral of a
// [Cache], and each ticket once for as long as its evidence lasts and the collateral
// stays the same. Many validators may share one. It starts no goroutine.
type Checker struct {
	cache    *Cache
	limit    int
	running  chan struct{} // holds a token per quote being verified
	admitted chan struct{} // and per quote running or waiting

	mu struct {
		sync.Mutex
		verdicts map[ticketKey]*verdict
	}
}

// ticketKey is a ticket's class and the SHA-256 of its data: a name within the process,
// for which processors have instructions, and not the ticket's id.
type ticketKey struct {
	v2     bool
	sha256 [32]byte
}

// source gets the collateral of a kind of platform.
type source func(ctx context.Context, fmspc string) (*Collateral, error)

// verdict is a ticket that was verified. It is immutable.
type verdict struct {
	ticket   *Ticket
	evidence *Evidence
	claims   Claims
	bound    identity.ID // digest of the collateral
}

// NewChecker returns a checker on the collateral, and under the root, of cache.
func NewChecker(cache *Cache, opts CheckerOptions) *Checker {
	if opts.Workers <= 0 {
		opts.Workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if opts.Waiting <= 0 {
		opts.Waiting = 64
	}
	if opts.Verdicts <= 0 {
		opts.Verdicts = 4096
	}
	c := &Checker{cache: cache, limit: opts.Verdicts,
		running: make(chan struct{}, opts.Workers), admitted: make(chan struct{}, opts.Workers+opts.Waiting)}
	c.mu.verdicts = map[ticketKey]*verdict{}
	return c
}

// Root is the root that quotes are verified under.
func (c *Checker) Root() Root { return c.cache.Root() }

// Verify is the package's Verify with current collateral, which it fetches if need be.
// The error may also wrap [ErrBusy] or ctx's.
func (c *Checker) Verify(ctx context.Context, raw []byte, now time.Time) (*Evidence, error) {
	return c.verify(ctx, raw, now, c.cache.Collateral)
}

// atHand is Cache.Collateral for who cannot wait: what is missing is fetched for the
// next time.
func (c *Checker) atHand(_ context.Context, fmspc string) (*Collateral, error) {
	c.cache.Prefetch(fmspc)
	return nil, fmt.Errorf("%w: none at hand for platform %s", ErrCollateral, fmspc)
}

// verify bounds how many are verified at once. missing gets collateral that the cache
// does not have; no worker waits for it.
func (c *Checker) verify(ctx context.Context, raw []byte, now time.Time, missing source) (*Evidence, error) {
	select {
	case c.admitted <- struct{}{}:
		defer func() { <-c.admitted }()
	default:
		return nil, ErrBusy
	}
	var fmspc string
	var collateral *Collateral
	err := c.work(ctx, func() (err error) {
		fmspc, collateral, err = c.collateral(raw, now)
		return err
	})
	if err == nil && collateral == nil {
		collateral, err = missing(ctx, fmspc)
	}
	if err != nil {
		return nil, err
	}
	var evidence *Evidence
	err = c.work(ctx, func() (err error) {
		evidence, err = Verify(raw, c.cache.Root(), collateral, At(now))
		return err
	})
	return evidence, err
}

// work runs do as one of the workers.
func (c *Checker) work(ctx context.Context, do func() error) error {
	select {
	case c.running <- struct{}{}:
		defer func() { <-c.running }()
		return do()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// collateral finds the kind of platform of a quote, and the collateral at hand for it,
// which may be nil. The kind stands in a certificate that anybody may have written:
// before something is fetched for it, the quote's signatures are checked, so that
// strangers cannot have us ask for every number there is.
func (c *Checker) collateral(raw []byte, now time.Time) (string, *Collateral, error) {
	parts, err := split(raw)
	if err != nil {
		return "", nil, err
	}
	pck, err := readPCK(parts.chain, nil)
	if err != nil {
		return "", nil, err
	}
	fmspc := pck.extensions.FMSPC
	if have := c.cache.Cached(fmspc, now); have != nil {
		return fmspc, have, nil
	}
	if err := verifySignatures(raw, c.cache.Root(), nil, At(now)); err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrForged, err)
	}
	return fmspc, nil, nil
}

// known returns the verdict on a ticket if it still stands.
func (c *Checker) known(id ticketKey, now time.Time) *verdict {
	c.mu.Lock()
	v := c.mu.verdicts[id]
	c.mu.Unlock()
	if v == nil || now.After(v.evidence.NotAfter) {
		return nil
	}
	current := c.cache.Cached(v.evidence.FMSPC, now)
	if current == nil || current.digest != v.bound {
		return nil // Intel has spoken since
	}
	return v
}

// remember keeps a verdict. At the limit it drops those that no longer stand, or else
// any one: whoever it was is verified again.
func (c *Checker) remember(id ticketKey, v *verdict, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.verdicts) >= c.limit {
		for old, stored := range c.mu.verdicts {
			if now.After(stored.evidence.NotAfter) {
				delete(c.mu.verdicts, old)
			}
		}
		for old := range c.mu.verdicts {
			if len(c.mu.verdicts) < c.limit {
				break
			}
			delete(c.mu.verdicts, old)
		}
	}
	c.mu.verdicts[id] = v
}
