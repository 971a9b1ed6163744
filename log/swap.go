package log

// A compare-exchange names the value that must be there by its digest, so that
// it fits into a record however large the values are.
//
//	before  0 (absent) | 1, digest 32
//	after   0 (absent) | 1, size uvarint, value

// swap is the decoded part of a compare-exchange.
type swap struct {
	existing bool // a value must be there, with this digest; else none
	digest   Digest
	exists   bool // leave value there; else nothing
	value    []byte
}

// appendSwap appends both sides of a compare-exchange to a command.
func appendSwap[V any](command []byte, codec Codec[V], before, after *V) ([]byte, error) {
	if before == nil {
		command = append(command, resultAbsent)
	} else {
		value, err := encodeValue(codec, *before)
		if err != nil {
			return nil, err
		}
		digest := Sum(value)
		command = append(append(command, resultPresent), digest[:]...)
	}
	if after == nil {
		return append(command, resultAbsent), nil
	}
	value, err := encodeValue(codec, *after)
	if err != nil {
		return nil, err
	}
	return appendBytes(append(command, resultPresent), value), nil
}

// swap reads both sides of a compare-exchange.
func (w *wire) swap() (s swap) {
	if s.existing = w.flag(); s.existing {
		copy(s.digest[:], w.take(len(s.digest)))
	}
	if s.exists = w.flag(); s.exists {
		s.value = w.value()
	}
	return s
}

// flag returns whether the next byte is 1; it must be 0 or 1.
func (w *wire) flag() bool {
	b := w.take(1)
	if b == nil || b[0] > 1 {
		w.bad = true
		return false
	}
	return b[0] == 1
}

// swapRow compares and exchanges one row. If counted it keeps the count row.
// The result is present if the exchange took place, else absent and what is
// there: absent, or present and the value.
func swapRow(tx *Tx, key []byte, s swap, counted bool) ([]byte, error) {
	old, existed, err := tx.Get(key)
	if err != nil {
		return nil, err
	}
	if existed != s.existing || existed && Sum(old.Value) != s.digest {
		if !existed {
			return []byte{resultAbsent, resultAbsent}, nil
		}
		return append([]byte{resultAbsent}, present(old.Value)...), nil
	}
	delta := 0
	switch {
	case s.exists:
		err = tx.Set(key, s.value)
		if !existed {
			delta = 1
		}
	case existed:
		err = tx.Delete(key)
		delta = -1
	}
	if err == nil && counted {
		err = addCount(tx, delta)
	}
	return taken(true), err
}

// decodeSwap decodes the result of a compare-exchange.
func decodeSwap[V any](codec Codec[V], result []byte) (swapped bool, current *V, err error) {
	switch {
	case result[0] == resultPresent:
		return true, nil, nil
	case len(result) < 2:
		return false, nil, ErrCommand
	}
	v, ok, err := decodeOptional(codec, result[1:])
	if err != nil || !ok {
		return false, nil, err
	}
	return false, &v, nil
}
