package tdx

import "crypto/x509"

// Pool is the root as go-tdx-guest takes it.
func (r Root) Pool() *x509.CertPool { return r.pool() }

// VerifySignatures checks where a quote comes from, without collateral.
func VerifySignatures(raw []byte, root Root, c *Collateral, at Times) error {
	return verifySignatures(raw, root, c, at)
}

// EvaluateTCB finds the levels that fit a quote, unproven.
func EvaluateTCB(raw []byte, c *Collateral) (TCB, error) {
	q, err := ParseQuote(raw)
	if err != nil {
		return TCB{}, err
	}
	pck, err := readPCK(raw)
	if err != nil {
		return TCB{}, err
	}
	return evaluateTCB(q, pck.extensions, &c.info, &c.qe)
}
