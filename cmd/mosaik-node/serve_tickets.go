package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/conf"
	"github.com/mosaik-engine/mosaik/identity"
)

// The settings of tickets: which ones the node asks the other members for, and which
// it has itself.

// checkTickets says what is wrong with them.
func (s *settings) checkTickets(bad func(name string, err error) error) error {
	if len(s.ticketKeys) == 0 {
		for name, set := range map[string]bool{
			"ticket-issuer": len(s.ticketIssuers) > 0, "ticket-audience": len(s.ticketAudiences) > 0,
			"ticket-claim": len(s.ticketClaims) > 0, "ticket-max-lifetime": s.ticketLifetime != 0,
		} {
			if set {
				return bad(name, errors.New("it says which tickets are good, but no ticket is asked for; that needs a ticket-key"))
			}
		}
		return nil
	}
	if _, err := s.ticketClauses(); err != nil {
		return bad("ticket-key", err)
	}
	return nil
}

// ticketClauses returns what the node asks of the members' entries.
func (s *settings) ticketClauses() ([]identity.Clause, error) {
	if len(s.ticketKeys) == 0 {
		return nil, nil
	}
	o := identity.JWTOptions{Issuers: s.ticketIssuers, Audiences: s.ticketAudiences, MaxLifetime: s.ticketLifetime}
	for i, text := range s.ticketKeys {
		k, err := jwtKeyOf(text)
		if err != nil {
			return nil, fmt.Errorf("number %d: %w", i+1, err)
		}
		o.Keys = append(o.Keys, k)
	}
	var err error
	if o.Claims, err = claimsOf(s.ticketClaims); err != nil {
		return nil, err
	}
	validator, err := identity.NewJWT(o)
	if err != nil {
		return nil, err
	}
	return []identity.Clause{identity.Require(validator)}, nil
}

// readTickets reads a file of tickets: JSON Web Tokens, one a line.
func readTickets(path string) ([]identity.Ticket, error) {
	content, err := readFileBounded(path, identity.MaxTickets*(identity.MaxTicket+2))
	if err != nil {
		return nil, fmt.Errorf("%w: ticket-file: %w", conf.ErrConfig, err)
	}
	var tickets []identity.Ticket
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); line != "" {
			tickets = append(tickets, identity.Ticket{Class: identity.JWTClass(), Data: []byte(line)})
		}
	}
	if len(tickets) > identity.MaxTickets {
		return nil, fmt.Errorf("%w: ticket-file: %s has %d tickets, at most %d are possible", conf.ErrConfig, path, len(tickets), identity.MaxTickets)
	}
	return tickets, nil
}

// ticketPoll is how often the file of tickets is looked at. It is short beside the life
// of a ticket, and its reading costs nothing to speak of.
const ticketPoll = time.Second

// wallet is all tickets that a node shows: those of its file, and the one with its quote.
type wallet struct {
	mu     sync.Mutex
	peer   *mosaik.Peer // nil: it is not open yet
	file   []identity.Ticket
	quoted []identity.Ticket
}

// tickets returns what is to be shown.
func (w *wallet) tickets() []identity.Ticket {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.allLocked()
}

// allLocked returns the tickets of both kinds. REQUIRES: mu.
func (w *wallet) allLocked() []identity.Ticket { return slices.Concat(w.file, w.quoted) }

// open begins to show what is put in, and what was put in meanwhile.
func (w *wallet) open(p *mosaik.Peer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peer = p
	return p.SetTickets(w.allLocked())
}

// put replaces the tickets of one kind, a field of the wallet. It reports whether they
// are others than before.
func (w *wallet) put(kind *[]identity.Ticket, tickets []identity.Ticket) (changed bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if equalTickets(*kind, tickets) {
		return false, nil
	}
	before := *kind
	*kind = tickets
	if w.peer != nil {
		if err := w.peer.SetTickets(w.allLocked()); err != nil {
			*kind = before
			return false, err
		}
	}
	return true, nil
}

// ticketWatch shows the network the tickets that a file has.
//
// Goroutines: runWatch, one; ends with stop.
type ticketWatch struct {
	wallet *wallet
	path   string
	logger *slog.Logger
	ended  chan struct{}
	done   chan struct{}
}

func watchTickets(shown *wallet, path string, logger *slog.Logger) *ticketWatch {
	w := &ticketWatch{shown, path, logger, make(chan struct{}), make(chan struct{})}
	go w.runWatch()
	return w
}

// stop ends it; nil has ended.
func (w *ticketWatch) stop() {
	if w != nil {
		close(w.ended)
		<-w.done
	}
}

// runWatch looks at the file again and again. Whoever writes it should rename a
// complete one into its place. Half a ticket does no harm but for the moment until the
// rest is there: it is shown, and refused.
func (w *ticketWatch) runWatch() {
	defer close(w.done)
	ticker := time.NewTicker(ticketPoll)
	defer ticker.Stop()
	var failed string // the last failure that was told
	for {
		select {
		case <-w.ended:
			return
		case <-ticker.C:
		}
		err := w.look()
		if err == nil {
			failed = ""
		} else if err.Error() != failed {
			failed = err.Error()
			w.logger.Warn("the tickets stay as they are", "err", err)
		}
	}
}

// look shows the file's tickets if they are not those that are shown already.
func (w *ticketWatch) look() error {
	tickets, err := readTickets(w.path)
	if err != nil {
		return err
	}
	changed, err := w.wallet.put(&w.wallet.file, tickets)
	if changed {
		w.logger.Info("the node shows other tickets", "tickets", len(tickets))
	}
	return err
}

// equalTickets reports whether two lists of tickets are the same.
func equalTickets(a, b []identity.Ticket) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Class != b[i].Class || !bytes.Equal(a[i].Data, b[i].Data) {
			return false
		}
	}
	return true
}
