package network

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// maxCertificate bounds a certificate, in bytes. One of ours has about 300.
const maxCertificate = 2048

// certificateFor makes the certificate under which key speaks. It is an envelope
// of the public key and says nothing else: names and dates in it are not read by
// anybody.
func certificateFor(key identity.Key) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: key.PeerID().String()},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no expiration
	}
	// Ed25519 signatures are deterministic: the random source is not read.
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Signer().Public(), key.Signer())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("mosaik: make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key.Signer()}, nil
}

// peerOf returns the peer whose certificate was presented. TLS has checked by then
// that the other side has the private key of it.
func peerOf(state tls.ConnectionState) (identity.PeerID, error) {
	if n := len(state.PeerCertificates); n != 1 {
		return identity.PeerID{}, refusal(BadCertificate, "%d certificates, exactly one is wanted", n)
	}
	c := state.PeerCertificates[0]
	public, ok := c.PublicKey.(ed25519.PublicKey)
	switch {
	case len(c.Raw) > maxCertificate:
		return identity.PeerID{}, refusal(BadCertificate, "a certificate of %d bytes, the limit is %d", len(c.Raw), maxCertificate)
	case !ok || len(public) != identity.Size || c.SignatureAlgorithm != x509.PureEd25519:
		return identity.PeerID{}, refusal(BadCertificate, "a certificate of %v signed by %v, Ed25519 is wanted", c.PublicKeyAlgorithm, c.SignatureAlgorithm)
	case !ed25519.Verify(public, c.RawTBSCertificate, c.Signature):
		return identity.PeerID{}, refusal(BadCertificate, "the certificate is not signed by its own key")
	}
	return identity.PeerID(public), nil
}

// tlsConfig is what both sides have in common. protocols are offered or accepted
// by ALPN (RFC 7301); verify gets the peer that proved to have its key.
func tlsConfig(certificate tls.Certificate, protocols []string, verify func(identity.PeerID) error) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{certificate},
		MinVersion:         tls.VersionTLS13,
		NextProtos:         protocols,
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // there is no authority: VerifyConnection pins the key instead
		VerifyConnection: func(state tls.ConnectionState) error {
			peer, err := peerOf(state)
			if err != nil {
				return err
			}
			return verify(peer)
		},
		// A resumed session would have no fresh proof of the key.
		SessionTicketsDisabled: true,
		// Bonds carry large messages over one connection for long: full records from
		// the start cost fewer system calls.
		DynamicRecordSizingDisabled: true,
	}
}
