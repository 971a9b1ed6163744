package main

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/log"
)

// The rows of a book. All numbers are 8 bytes big-endian, so that rows lie in
// the order of their numbers; the price of a bid is complemented, so that on both
// sides the best order is the first row of the side, and of equal prices the
// oldest.
//
//	state  0                   -> last seq | number of the last fill
//	buy    1 | ^price | seq    -> quantity that is left
//	sell   2 | price | seq     -> quantity that is left
//	order  3 | seq             -> key of its row above, for a cancel to find
//	fill   4 | number          -> fill; only until it is published
//
// An order is known by its seq in the stream of orders: whoever appends one has
// an id for it at once, and there can be no two of the same.
const (
	stateRow = 0
	orderRow = 3
	fillRow  = 4
)

// Commands. seq is that of the order in its stream; see bookMachine.
//
//	place      1 | seq | side 1 | price | quantity
//	cancel     2 | seq | seq of the order to cancel
//	published  3 | number of the last published fill
const (
	placeCommand     = 1
	cancelCommand    = 2
	publishedCommand = 3
)

// Side is the side of the book that an order stands on.
type Side uint8

// The sides. Their numbers are the first byte of their rows.
const (
	Buy  Side = 1
	Sell Side = 2
)

// String returns "buy" or "sell".
func (s Side) String() string {
	switch s {
	case Buy:
		return "buy"
	case Sell:
		return "sell"
	}
	return fmt.Sprintf("side %d", uint8(s))
}

// opposite returns the side that an order is matched with.
func (s Side) opposite() Side {
	if s == Buy {
		return Sell
	}
	return Buy
}

// crosses reports whether an order of the side with this limit trades at price.
func (s Side) crosses(limit, price uint64) bool {
	if s == Buy {
		return price <= limit
	}
	return price >= limit
}

// rank turns a price into the number that rows of the side are sorted by, and back.
func (s Side) rank(price uint64) uint64 {
	if s == Buy {
		return ^price
	}
	return price
}

// Order is what traders write: a limit order or, with Cancel, the end of one.
type Order struct {
	Side     Side   `cbor:"side,omitempty"`
	Price    uint64 `cbor:"price,omitempty"` // worst that is taken, in ticks; from 1
	Quantity uint64 `cbor:"quantity,omitempty"`
	// Cancel is the seq of an order to take off the book. The other fields then say
	// nothing.
	Cancel uint64 `cbor:"cancel,omitempty"`
}

// command returns the command for the order with the seq.
func (o Order) command(seq uint64) []byte {
	if o.Cancel != 0 {
		return numbers([]byte{cancelCommand}, seq, o.Cancel)
	}
	b := append(numbers([]byte{placeCommand}, seq), byte(o.Side))
	return numbers(b, o.Price, o.Quantity)
}

// Resting is an order on the book.
type Resting struct {
	Seq, Price uint64
	Quantity   uint64 // that is left of it
}

// Fill is one trade. Fills of a book are numbered from 1 without gaps: the
// number is what tells a repeated one from a new one.
type Fill struct {
	Number   uint64 `cbor:"number"`
	Taker    uint64 `cbor:"taker"` // seq of the order that came
	Maker    uint64 `cbor:"maker"` // seq of the one that rested
	Price    uint64 `cbor:"price"` // the maker's: it was there first
	Quantity uint64 `cbor:"quantity"`
}

// Status says how a command went.
type Status uint8

// The statuses. There is none for a command that is no command at all: its result
// is empty.
const (
	Taken    Status = 1
	Repeated Status = 2 // the book has taken this seq, or a later one
	Refused  Status = 3 // no such side, no price, no quantity, nothing to cancel
)

// Result is what a command came to.
type Result struct {
	Status Status
	// Quantity is what rests of a new order, or what a cancel took off the book.
	Quantity uint64
	Fills    []Fill
}

const fillSize = 5 * 8

func appendFill(dst []byte, f Fill) []byte {
	return numbers(dst, f.Number, f.Taker, f.Maker, f.Price, f.Quantity)
}

func decodeFill(b []byte) Fill {
	return Fill{Number: number(b, 0), Taker: number(b, 1), Maker: number(b, 2), Price: number(b, 3), Quantity: number(b, 4)}
}

// encode returns the result as a machine does: status 1 | quantity | fill ...
func (r Result) encode() []byte {
	b := numbers([]byte{byte(r.Status)}, r.Quantity)
	for _, f := range r.Fills {
		b = appendFill(b, f)
	}
	return b
}

func decodeResult(b []byte) (Result, error) {
	if len(b) < 1+8 || (len(b)-1-8)%fillSize != 0 {
		return Result{}, log.ErrCommand
	}
	r := Result{Status: Status(b[0]), Quantity: number(b[1:], 0)}
	for b = b[1+8:]; len(b) > 0; b = b[fillSize:] {
		r.Fills = append(r.Fills, decodeFill(b))
	}
	return r, nil
}

// numbers appends numbers as rows and commands have them.
func numbers(dst []byte, ns ...uint64) []byte {
	for _, n := range ns {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return dst
}

// number returns the i-th of the numbers in b.
func number(b []byte, i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }

// bookMachine matches orders by price, then by time: an incoming order trades
// with the best prices of the other side, at each price with the oldest first,
// and what is left of it rests. Prices are whole ticks and quantities whole lots,
// so nothing is ever rounded.
//
// A command carries the seq that its order has in the stream of orders, and the
// book remembers the last one it has taken. So a loop that does not know whether
// a command arrived just submits it again. The seq of the command's own record
// would not do: a repeated command has another one.
//
// A refused command changes no row, so its seq is not remembered either. That is
// safe: submitted again before the next command is taken it meets the same book and is
// refused again, and afterwards it is a repeated one.
type bookMachine struct{}

// Signature implements log.Machine.
func (bookMachine) Signature() string { return "orderbook.book.v1" }

// Apply implements log.Machine.
func (bookMachine) Apply(tx *log.Tx, c log.Command) ([]byte, error) {
	if len(c.Payload) == 0 {
		return nil, nil
	}
	var r Result
	var err error
	switch kind, in := c.Payload[0], c.Payload[1:]; {
	case kind == placeCommand && len(in) == 8+1+2*8:
		o := Order{Side: Side(in[8]), Price: number(in[9:], 0), Quantity: number(in[9:], 1)}
		r, err = place(tx, number(in, 0), o)
	case kind == cancelCommand && len(in) == 2*8:
		r, err = cancel(tx, number(in, 0), number(in, 1))
	case kind == publishedCommand && len(in) == 8:
		r, err = published(tx, number(in, 0))
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.encode(), nil
}

// place matches an order and lets the rest of it rest.
func place(tx *log.Tx, seq uint64, o Order) (Result, error) {
	s, err := readState(tx)
	switch {
	case err != nil:
		return Result{}, err
	case seq <= s.last:
		return Result{Status: Repeated}, nil
	case o.Side != Buy && o.Side != Sell || o.Price == 0 || o.Quantity == 0:
		return Result{Status: Refused}, nil
	}
	// All makers first, then the writing: it would end the scan.
	r := Result{Status: Taken, Quantity: o.Quantity}
	var makers []Resting
	for maker, err := range resting(tx, o.Side.opposite()) {
		if err != nil {
			return Result{}, err
		}
		if !o.Side.crosses(o.Price, maker.Price) {
			break
		}
		f := Fill{Number: s.fills + 1, Taker: seq, Maker: maker.Seq, Price: maker.Price, Quantity: min(r.Quantity, maker.Quantity)}
		maker.Quantity -= f.Quantity
		r.Quantity -= f.Quantity
		s.fills++
		r.Fills, makers = append(r.Fills, f), append(makers, maker)
		if r.Quantity == 0 {
			break
		}
	}
	for i, f := range r.Fills {
		if err := tx.Set(numbers([]byte{fillRow}, f.Number), appendFill(nil, f)); err != nil {
			return Result{}, err
		}
		if err := rest(tx, o.Side.opposite(), makers[i]); err != nil {
			return Result{}, err
		}
	}
	s.last = seq
	if err := s.write(tx); err != nil || r.Quantity == 0 {
		return r, err
	}
	return r, rest(tx, o.Side, Resting{Seq: seq, Price: o.Price, Quantity: r.Quantity})
}

// cancel takes an order off the book.
func cancel(tx *log.Tx, seq, order uint64) (Result, error) {
	s, err := readState(tx)
	if err != nil {
		return Result{}, err
	}
	if seq <= s.last {
		return Result{Status: Repeated}, nil
	}
	at, ok, err := tx.Get(numbers([]byte{orderRow}, order))
	if err != nil || !ok {
		return Result{Status: Refused}, err
	}
	row, _, err := tx.Get(at.Value)
	if err != nil {
		return Result{}, err
	}
	o := decodeResting(row)
	r := Result{Status: Taken, Quantity: o.Quantity}
	o.Quantity = 0
	if err := rest(tx, Side(at.Value[0]), o); err != nil {
		return Result{}, err
	}
	s.last = seq
	return r, s.write(tx)
}

// published forgets the fills up to one: they are in their stream.
func published(tx *log.Tx, last uint64) (Result, error) {
	var gone []uint64
	for f, err := range unpublished(tx) {
		if err != nil {
			return Result{}, err
		}
		if f.Number > last {
			break
		}
		gone = append(gone, f.Number)
	}
	if len(gone) == 0 {
		return Result{Status: Refused}, nil
	}
	for _, n := range gone {
		if err := tx.Delete(numbers([]byte{fillRow}, n)); err != nil {
			return Result{}, err
		}
	}
	return Result{Status: Taken}, nil
}

// rest writes an order to its side, or removes it if nothing is left.
func rest(tx *log.Tx, side Side, o Resting) error {
	at := numbers([]byte{byte(side)}, side.rank(o.Price), o.Seq)
	order := numbers([]byte{orderRow}, o.Seq)
	if o.Quantity == 0 {
		if err := tx.Delete(at); err != nil {
			return err
		}
		return tx.Delete(order)
	}
	if err := tx.Set(at, numbers(nil, o.Quantity)); err != nil {
		return err
	}
	return tx.Set(order, at)
}

// state is what a book knows beside its orders.
type state struct {
	last  uint64 // seq in the stream of orders that it took last
	fills uint64 // number of the last fill
}

func readState(v log.View) (state, error) {
	row, ok, err := v.Get([]byte{stateRow})
	if err != nil || !ok {
		return state{}, err
	}
	return state{last: number(row.Value, 0), fills: number(row.Value, 1)}, nil
}

func (s state) write(tx *log.Tx) error {
	return tx.Set([]byte{stateRow}, numbers(nil, s.last, s.fills))
}

// resting yields the orders of a side, the best first.
func resting(v log.View, side Side) iter.Seq2[Resting, error] {
	return rows(v, byte(side), decodeResting)
}

func decodeResting(row log.Row) Resting {
	return Resting{Seq: number(row.Key[1:], 1), Price: Side(row.Key[0]).rank(number(row.Key[1:], 0)), Quantity: number(row.Value, 0)}
}

// unpublished yields the fills that are not known to be in their stream.
func unpublished(v log.View) iter.Seq2[Fill, error] {
	return rows(v, fillRow, func(row log.Row) Fill { return decodeFill(row.Value) })
}

// rows yields the rows of one kind, decoded.
func rows[T any](v log.View, kind byte, decode func(log.Row) T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for row, err := range v.Scan(log.Range{From: []byte{kind}, To: []byte{kind + 1}}) {
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			if !yield(decode(row), nil) {
				return
			}
		}
	}
}

// Book is a book as of one commit, each side with its best order first.
type Book struct {
	Buys  []Resting // highest price first
	Sells []Resting // lowest price first
}

// readBook reads the whole book from a view.
func readBook(v log.View) (b Book, err error) {
	if b.Buys, err = collect(resting(v, Buy), 0); err != nil {
		return Book{}, err
	}
	if b.Sells, err = collect(resting(v, Sell), 0); err != nil {
		return Book{}, err
	}
	return b, nil
}

// collect returns the first of what an iterator yields, at most limit; 0 is no
// limit.
func collect[T any](seq iter.Seq2[T, error], limit int) ([]T, error) {
	var list []T
	for v, err := range seq {
		if err != nil {
			return nil, err
		}
		if list = append(list, v); len(list) == limit {
			break
		}
	}
	return list, nil
}
