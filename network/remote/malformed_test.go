package remote

import (
	"errors"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// TestMalformedGuest: who asks in a way that nobody does loses the connection, and costs
// the others nothing.
func TestMalformedGuest(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	fill(t, m, 0, 1)
	a, guest := w.open(1, serve(everybody(), m)), w.open(2, Options{})
	request := (&request{op: opScan, group: testGroup, key: testKey, query: log.Query{Key: testKey, Follow: true}}).appendTo(nil)
	open := func(channel uint32) message {
		return message{kind: kindOpen, channel: channel, credit: MinWindow, content: request}
	}
	for name, messages := range map[string][]message{
		"a number twice":        {open(2), open(2)},
		"a number that falls":   {open(2), open(1)},
		"credit for nothing":    {open(1), {kind: kindCredit, channel: 1, credit: MaxWindow}},
		"credit for no channel": {{kind: kindCredit, channel: 1, credit: 1}},
		"cancel of no channel":  {{kind: kindCancel, channel: 1, reason: network.Done}},
		"a small window":        {{kind: kindOpen, channel: 1, credit: MinWindow - 1, content: request}},
		"data":                  {{kind: kindData, channel: 1, content: []byte("x")}},
		"an end":                {{kind: kindEnd, channel: 1, reason: network.Done}},
		"no request":            {{kind: kindOpen, channel: 1, credit: MinWindow}},
		"a request and more":    {{kind: kindOpen, channel: 1, credit: MinWindow, content: append(plainRequest.appendTo(nil), 0)}},
		"an unknown kind":       {{kind: 99, channel: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := guest.e.Dial(testContext(t), a.e.Peer(), Protocol)
			if err != nil {
				t.Fatal(err)
			}
			for i := range messages {
				if conn.WriteMessage(messages[i].appendTo(nil)) != nil {
					break
				}
			}
			for err == nil {
				_, err = conn.ReadMessage()
			}
			if !errors.Is(err, network.Malformed) {
				t.Errorf("%v", err)
			}
		})
	}
	eventually(t, "nothing is left", func() bool { return len(a.Channels()) == 0 })
	for _, err := range guest.guest(t, GroupOptions{}, a).Scan(testContext(t), log.Query{Key: testKey}) {
		if err != nil {
			t.Error(err)
		}
	}
}

var plainRequest = request{op: opSync, group: testGroup}

// TestTooManyChannels: what is above the limit is refused, and the rest goes on.
func TestTooManyChannels(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	a, guest := w.open(1, serve(everybody(), m)), w.open(2, Options{})
	conn, err := guest.e.Dial(testContext(t), a.e.Peer(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tail := (&request{op: opScan, group: testGroup, key: testKey, query: log.Query{Key: testKey, Follow: true}}).appendTo(nil)
	const above = 100
	for i := range uint32(maxChannels + above) {
		m := message{kind: kindOpen, channel: i + 1, credit: MinWindow, content: tail}
		if err := conn.WriteMessage(m.appendTo(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for refusals := 0; refusals < above; {
		b, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if m, err := decodeMessage(b); err == nil && m.kind == kindEnd {
			if refusals++; m.reason != NoCapacity || m.channel <= maxChannels {
				t.Fatalf("%+v", m)
			}
		}
	}
	if n := len(a.Channels()); n != maxChannels {
		t.Errorf("%d channels", n)
	}
}

// liar answers each request with the given items, and ends the answer.
func (w *town) liar(i int, items ...[]byte) *house {
	h := w.open(i, serve(everybody(), nil))
	h.Service.Close() // so that the name is free
	stop, err := h.e.Handle(network.Protocol{Name: Protocol, MaxMessage: maxMessage, Serve: func(c *network.Conn) {
		for {
			b, err := c.ReadMessage()
			if err != nil {
				return
			}
			m, err := decodeMessage(b)
			if err != nil || m.kind != kindOpen {
				continue
			}
			for _, item := range items {
				_ = c.WriteMessage((&message{kind: kindData, channel: m.channel, content: item}).appendTo(nil))
			}
			_ = c.WriteMessage((&message{kind: kindEnd, channel: m.channel, reason: network.Done}).appendTo(nil))
		}
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(stop)
	return h
}

// TestMalformedReplica: what no replica answers is not believed, whichever of the
// others would have answered well.
func TestMalformedReplica(t *testing.T) {
	run := func(key identity.ID, first uint64, count int) []byte {
		var records []byte
		for range count {
			records = log.AppendRecord(records, []byte("r"))
		}
		r, _, err := log.NextRun(log.AppendRun(nil, key, first, count, records), 0)
		if err != nil {
			t.Fatal(err)
		}
		r.Commit = 1
		return appendRun(nil, &r)
	}
	begun := (&start{until: 10}).appendTo(nil)
	scan := func(g *Group) (err error) {
		for _, e := range g.Scan(testContext(t), log.Query{Key: testKey, From: log.Seq(3)}) {
			err = e
		}
		return err
	}
	write := func(g *Group) error { _, err := g.Append(testContext(t), testKey, nil); return err }
	view := func(g *Group) error { _, err := g.View(testContext(t), testKey, log.Stale()); return err }
	for name, test := range map[string]struct {
		items [][]byte
		do    func(*Group) error
		want  error
	}{
		"a gap":                 {[][]byte{begun, run(testKey, 3, 2), run(testKey, 6, 1)}, scan, ErrAnswer},
		"a record twice":        {[][]byte{begun, run(testKey, 3, 2), run(testKey, 4, 2)}, scan, ErrAnswer},
		"from before":           {[][]byte{begun, run(testKey, 2, 5)}, scan, ErrAnswer},
		"behind the end":        {[][]byte{begun, run(testKey, 3, 20)}, scan, ErrAnswer},
		"of another key":        {[][]byte{begun, run(testGroup, 3, 1)}, scan, ErrAnswer},
		"without a start":       {[][]byte{run(testKey, 3, 1)}, scan, ErrAnswer},
		"another kind":          {[][]byte{begun, appendRow(nil, &log.Row{})}, scan, ErrAnswer},
		"cut off":               {[][]byte{begun, run(testKey, 3, 1)[:20]}, scan, ErrAnswer},
		"too large":             {[][]byte{begun, {byte(itemRun), 255, 255, 255, 255}}, scan, ErrAnswer},
		"nothing of a write":    {nil, write, ErrUnknown},
		"half of a write":       {[][]byte{(&written{pointer: log.Pointer{Commit: 1, Seq: 1}, held: true, results: 2}).appendTo(nil), appendResult(nil, nil)}, write, ErrUnknown},
		"another view than one": {[][]byte{run(testKey, 1, 1)}, view, ErrAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			guest := w.open(2, Options{})
			if err := test.do(guest.guest(t, GroupOptions{}, w.liar(1, test.items...))); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
	// More than was granted.
	w := newTown(t)
	guest := w.open(2, Options{})
	var much [][]byte
	for range MinWindow/maxData + 2 {
		much = append(much, make([]byte, maxData))
	}
	d, err := guest.connect(testContext(t), w.liar(1, much...).e.Peer())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.ask(testContext(t), &plainRequest, MinWindow); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.link.conn.Done():
	case <-time.After(30 * time.Second):
	}
	if err := d.link.conn.Err(); !errors.Is(err, network.Malformed) {
		t.Errorf("%v", err)
	}
}
