package oracle

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms/wire"
)

// TickSize is the size of an encoded tick, in bytes.
const TickSize = 1 + 8 + 2*MaxSymbol + 8 + 8 + 32 + 1 + 1 + 8 + 1 + 1 + 32 + 32 + 32 + signatureSize

// signatureSize is the size of an Ed25519 signature, the last field of a tick.
const signatureSize = 64

// Errors of a tick that is in its form.
var (
	// ErrSignature says that a tick is not signed by its signer, or not for that stream.
	ErrSignature = errors.New("mosaik: bad signature of a price tick")
	// ErrSigner says that a tick's signer is not one of those that are admitted.
	ErrSigner = errors.New("mosaik: the signer of a price tick is not admitted")
)

// PriceTick is one published price. It is a value; it shares no memory with anything.
type PriceTick struct {
	// TimestampMs is the time of the round, in milliseconds since 1970.
	TimestampMs uint64
	// Pair is what the price is of, in the direction that the oracle declares.
	Pair Pair
	// Price is the price, in units of 10^-Decimals.
	Price Price
	// Confidence is the largest |source - price| of the sources that contributed.
	Confidence Price
	// SourceSet is H of the ids of the sources that contributed, in the parameters' order.
	SourceSet identity.ID
	// SourceCount is how many those are.
	SourceCount uint8
	// Stale is set if they are fewer than Parameters.Minimum.
	Stale bool
	// Seq is the number of the round, from 1. Rounds below the quorum have one and no tick,
	// so a gap is what was skipped.
	Seq uint64
	// Disagreement is set if more sources than Parameters.Outliers deviate from the price by
	// more than Parameters.Tolerance.
	Disagreement bool
	// Decimals are those of Price and Confidence.
	Decimals uint8
	// Parameters is the digest of the parameters that the price was computed under. They may
	// change within a stream, when an oracle is rotated.
	Parameters identity.ID
	// Round is the digest of the round that the price was computed from.
	Round log.Digest
	// Signer is the enclave key that has signed.
	Signer identity.PeerID
	// Signature is over everything else, and the stream (SigningPreimage).
	Signature [signatureSize]byte
}

// Validate checks what can be wrong in a tick by itself, all but the signature. The error
// wraps ErrEncoding and names the field.
func (t *PriceTick) Validate() error {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("%w: tick: %s: "+format, append([]any{ErrEncoding, field}, args...)...)
	}
	if err := t.Pair.Validate(); err != nil {
		return bad("pair", "%w", err)
	}
	switch {
	case t.TimestampMs > maxTimestamp:
		return bad("timestamp", "%d, the limit is %d", t.TimestampMs, uint64(maxTimestamp))
	case t.Price == 0 || t.Price > MaxPrice:
		return bad("price", "%d is not from 1 to %d", t.Price, MaxPrice)
	case t.Confidence > MaxPrice:
		return bad("confidence", "%d, the limit is %d", t.Confidence, MaxPrice)
	case t.SourceCount == 0 || t.SourceCount > MaxSources:
		return bad("source count", "%d is not from 1 to %d", t.SourceCount, MaxSources)
	case t.Seq == 0:
		return bad("seq", "it is 0; the first is 1")
	case t.Decimals > MaxDecimals:
		return bad("decimals", "%d, the limit is %d", t.Decimals, MaxDecimals)
	}
	return nil
}

// appendUnsigned appends all fields but the signature.
func (t *PriceTick) appendUnsigned(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(append(dst, version), t.TimestampMs)
	dst = appendSymbol(appendSymbol(dst, t.Pair.Base), t.Pair.Quote)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(t.Price))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(t.Confidence))
	dst = append(append(dst, t.SourceSet[:]...), t.SourceCount)
	dst = binary.LittleEndian.AppendUint64(wire.AppendBool(dst, t.Stale), t.Seq)
	dst = append(wire.AppendBool(dst, t.Disagreement), t.Decimals)
	dst = append(append(dst, t.Parameters[:]...), t.Round[:]...)
	return append(dst, t.Signer[:]...)
}

// Append appends the one encoding of a tick that Validate accepts, of TickSize bytes.
func (t *PriceTick) Append(dst []byte) []byte {
	return append(t.appendUnsigned(dst), t.Signature[:]...)
}

// DecodeTick decodes exactly what Append appended. The error wraps ErrEncoding. The
// signature is not looked at: that is Verify.
func DecodeTick(b []byte) (PriceTick, error) {
	c := newCutter(b)
	if v := c.U8("version"); v != version {
		c.Fail("version", "%d, this program knows %d", v, version)
	}
	t := PriceTick{
		TimestampMs:  c.U64("timestamp"),
		Pair:         Pair{c.symbol("base"), c.symbol("quote")},
		Price:        Price(c.U64("price")),
		Confidence:   Price(c.U64("confidence")),
		SourceSet:    c.ID("source set"),
		SourceCount:  c.U8("source count"),
		Stale:        c.Bool("stale"),
		Seq:          c.U64("seq"),
		Disagreement: c.Bool("disagreement"),
		Decimals:     c.U8("decimals"),
		Parameters:   c.ID("parameters"),
		Round:        log.Digest(c.ID("round")),
		Signer:       identity.PeerID(c.ID("signer")),
		Signature:    [signatureSize]byte(c.Take("signature", signatureSize)),
	}
	if err := c.End(); err != nil {
		return PriceTick{}, fmt.Errorf("tick: %w", err)
	}
	if err := t.Validate(); err != nil {
		return PriceTick{}, err
	}
	return t, nil
}

// signingDomain opens what is signed, so that a signature of a tick is one of nothing else.
const signingDomain = "mosaik.oracle.price-tick.v1|"

// SigningPreimage returns what the signer signs: a domain, the id of the stream, which
// folds the oracle, and all fields but the signature. So a tick is good in one stream only.
func (t *PriceTick) SigningPreimage(stableID identity.ID) []byte {
	stream := StreamID(stableID, t.Pair)
	b := make([]byte, 0, len(signingDomain)+len(stream)+TickSize)
	return t.appendUnsigned(append(append(b, signingDomain...), stream[:]...))
}

// Sign sets Signer and Signature, for a tick of the oracle with that stable id.
func (t *PriceTick) Sign(stableID identity.ID, key identity.Key) {
	t.Signer = key.PeerID()
	copy(t.Signature[:], key.Sign(t.SigningPreimage(stableID)))
}

// Verify checks that the tick is signed for the stream of that oracle and that pair, by a
// key that is admitted: one whose quote has been found acceptable on a bond. A consumer
// that decides by its entries gives its lookup; nobody is admitted by default. The error
// wraps ErrSigner or ErrSignature.
func (t *PriceTick) Verify(stableID identity.ID, admitted func(identity.PeerID) bool) error {
	if admitted == nil || !admitted(t.Signer) {
		return fmt.Errorf("%w: seq %d of %v, %s", ErrSigner, t.Seq, t.Pair, t.Signer.Short())
	}
	if !t.Signer.Verify(t.SigningPreimage(stableID), t.Signature[:]) {
		return fmt.Errorf("%w: seq %d of %v, signer %s", ErrSignature, t.Seq, t.Pair, t.Signer.Short())
	}
	return nil
}
