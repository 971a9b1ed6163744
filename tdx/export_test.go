package tdx

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
)

// Pool is the root as go-tdx-guest takes it.
func (r Root) Pool() *x509.CertPool { return r.pool() }

// VerifySignatures checks where a quote comes from, without collateral.
func VerifySignatures(raw []byte, root Root, c *Collateral, at Times) error {
	return verifySignatures(raw, root, c, at)
}

// EvaluateTCB finds the levels that fit a quote, unproven.
func EvaluateTCB(raw []byte, c *Collateral) (TCB, error) {
	q, parts, err := decode(raw)
	if err != nil {
		return TCB{}, err
	}
	pck, err := readPCK(parts.chain, nil)
	if err != nil {
		return TCB{}, err
	}
	return evaluateTCB(q, pck.extensions, &c.info, &c.qe)
}

// Occupy takes n of the checker's workers until the returned function is called.
func (c *Checker) Occupy(n int) (release func()) {
	for range n {
		c.admitted <- struct{}{}
		c.running <- struct{}{}
	}
	return func() {
		for range n {
			<-c.running
			<-c.admitted
		}
	}
}

// Verdicts counts the verdicts that are kept.
func (c *Checker) Verdicts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.mu.verdicts)
}

// SameButPEM reports whether two quotes differ in nothing but how their certificates
// are spelled in PEM.
func SameButPEM(a, b []byte) bool {
	p, err1 := split(a)
	q, err2 := split(b)
	if err1 != nil || err2 != nil || len(p.chain) != len(q.chain) {
		return false
	}
	if !bytes.Equal(a[:len(a)-len(p.chain)], b[:len(b)-len(q.chain)]) {
		return false
	}
	for range 3 {
		var x, y *pem.Block
		x, p.chain = pem.Decode(p.chain)
		y, q.chain = pem.Decode(q.chain)
		if x == nil || y == nil || !bytes.Equal(x.Bytes, y.Bytes) {
			return false
		}
	}
	return true
}

// NewGuest is a guest on another interface than Linux's.
func NewGuest(client configfsi.Client) *Guest { return &Guest{client: client} }
