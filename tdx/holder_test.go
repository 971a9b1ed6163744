package tdx_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
)

// flaky is a quoter that fails while it is told to.
type flaky struct {
	quoter
	mu  sync.Mutex
	err error
}

func (f *flaky) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *flaky) Quote(data [64]byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return f.quoter.Quote(data)
}

func TestHolderRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tdx.CheckerOptions{})
		v := r.validator(t, tdx.Policy{MaxLifetime: time.Hour, MaxAge: time.Hour})
		quoter := &flaky{quoter: r.authority.Quoter(sample())}
		var mu sync.Mutex
		var installed [][]byte
		h, err := tdx.OpenHolder(quoter, tdx.HolderOptions{Peer: r.subject.Peer, Network: r.subject.Network,
			Install: func(class identity.ID, data []byte) {
				if class != tdx.TicketClass() {
					t.Errorf("class %s", class)
				}
				mu.Lock()
				defer mu.Unlock()
				installed = append(installed, data)
			}})
		if err != nil {
			t.Fatal(err)
		}
		valid := func(want int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(installed) != want {
				t.Fatalf("%d tickets were made, want %d", len(installed), want)
			}
			if _, err := v.Admit(t.Context(), installed[want-1], r.subject, time.Now()); err != nil {
				t.Error(err)
			}
		}
		valid(1)
		time.Sleep(40*time.Minute - time.Nanosecond)
		valid(1)
		time.Sleep(time.Nanosecond)
		valid(2)
		quoter.fail(errors.New("the host is gone"))
		time.Sleep(45 * time.Minute) // fails at 40, 42, 44
		valid(2)
		quoter.fail(nil)
		time.Sleep(time.Minute) // at 46
		valid(3)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(24 * time.Hour)
		if len(installed) != 3 {
			t.Error("a ticket was made after Close")
		}
	})
}

func TestHolderRefuses(t *testing.T) {
	q := authority(t, 1).Quoter(sample())
	good := tdx.HolderOptions{Peer: identity.PeerID{1}, Network: identity.ID{1}, Install: func(identity.ID, []byte) {}}
	for name, change := range map[string]func(*tdx.HolderOptions){
		"no peer":       func(o *tdx.HolderOptions) { o.Peer = identity.PeerID{} },
		"no network":    func(o *tdx.HolderOptions) { o.Network = identity.ID{} },
		"no install":    func(o *tdx.HolderOptions) { o.Install = nil },
		"for ever":      func(o *tdx.HolderOptions) { o.Lifetime = 1 << 62 },
		"too long":      func(o *tdx.HolderOptions) { o.Lifetime = tdx.MaxLifetime + time.Second },
		"no time":       func(o *tdx.HolderOptions) { o.Lifetime = time.Millisecond },
		"half a second": func(o *tdx.HolderOptions) { o.Lifetime = 1500 * time.Millisecond },
	} {
		opts := good
		change(&opts)
		if _, err := tdx.OpenHolder(q, opts); !errors.Is(err, tdx.ErrHolder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("no TDX here")
	if _, err := tdx.OpenHolder(&flaky{quoter: q, err: broken}, good); !errors.Is(err, broken) {
		t.Errorf("a quoter that fails: %v", err)
	}
	if _, err := tdx.OpenHolder(stuck{q}, good); !errors.Is(err, tdx.ErrQuote) {
		t.Errorf("a quoter that quotes something else: %v", err)
	}
}

// stuck quotes the same data whatever it is asked for.
type stuck struct{ quoter }

func (s stuck) Quote([64]byte) ([]byte, error) { return s.quoter.Quote([64]byte{1}) }
