package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// PeerID is a node: the bytes of its Ed25519 public key. The zero PeerID is
// nobody.
type PeerID [Size]byte

// ParsePeerID decodes the text form: 64 lower-case hex digits. Any other text
// is an error that wraps [ErrID]. It does not check that the bytes are a point
// on the curve; a PeerID that is none verifies no signature.
func ParsePeerID(text string) (PeerID, error) {
	var p PeerID
	if err := decodeText((*[Size]byte)(&p), text); err != nil {
		return PeerID{}, err
	}
	return p, nil
}

// Verify reports whether signature is p's signature of message.
func (p PeerID) Verify(message, signature []byte) bool {
	return len(signature) == ed25519.SignatureSize && ed25519.Verify(p[:], message, signature)
}

// IsZero reports whether p is the zero PeerID.
func (p PeerID) IsZero() bool { return p == PeerID{} }

// Compare orders PeerIDs by their bytes: -1, 0 or +1.
func (p PeerID) Compare(other PeerID) int { return bytes.Compare(p[:], other[:]) }

// String returns the text form.
func (p PeerID) String() string { return hex.EncodeToString(p[:]) }

// Short returns the first 8 hex digits of the text form, for log lines.
func (p PeerID) Short() string { return hex.EncodeToString(p[:4]) }

// AppendText appends the text form to dst. The error is always nil.
func (p PeerID) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, p[:]), nil }

// MarshalText returns the text form. The error is always nil.
func (p PeerID) MarshalText() ([]byte, error) { return p.AppendText(nil) }

// UnmarshalText sets p from the text form; on an error p keeps its value.
func (p *PeerID) UnmarshalText(text []byte) error {
	return decodeText((*[Size]byte)(p), string(text))
}

// AppendBinary appends the 32 bytes of p to dst. The error is always nil.
func (p PeerID) AppendBinary(dst []byte) ([]byte, error) { return append(dst, p[:]...), nil }

// MarshalBinary returns the 32 bytes of p in a fresh slice. The error is always
// nil.
func (p PeerID) MarshalBinary() ([]byte, error) { return p.AppendBinary(nil) }

// UnmarshalBinary sets p from exactly 32 bytes, which it copies; any other
// length is an error that wraps [ErrID] and leaves p as it was.
func (p *PeerID) UnmarshalBinary(data []byte) error {
	return decodeBinary((*[Size]byte)(p), data)
}

// keyFilePrefix opens a key file. The 1 is the version of the file's form.
const keyFilePrefix = "mosaik-key-v1 "

// keyFileSize is the number of bytes in a key file with its final newline.
const keyFileSize = len(keyFilePrefix) + textSize + 1

// ErrKeyFile reports a key file that [LoadKey] will not use: it is open to
// others, or it does not hold a key. The error that wraps it names the file and
// the reason, and never quotes the content.
var ErrKeyFile = errors.New("mosaik: unusable key file")

// Key is the private half of a [PeerID]. The zero Key is nobody's: its PeerID is
// zero, and signing with it is a bug of the caller that panics. A Key prints as
// the peer it belongs to, so that no log line carries the secret.
type Key struct {
	// private is a function because fmt, when it prints a struct that has a Key in
	// an unexported field, cannot call String and would print the bytes, of what a
	// pointer points to as well. So two Keys are not comparable: compare their PeerIDs.
	private func() ed25519.PrivateKey
}

// GenerateKey returns a fresh key from the system's random source.
func GenerateKey() (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("mosaik: generate key: %w", err)
	}
	return newKey(private), nil
}

func newKey(private ed25519.PrivateKey) Key {
	return Key{private: func() ed25519.PrivateKey { return private }}
}

// KeyFromSeed returns the key whose 32-byte RFC 8032 seed is given. Equal seeds
// give equal keys.
func KeyFromSeed(seed [Size]byte) Key {
	private := ed25519.NewKeyFromSeed(seed[:])
	return newKey(private)
}

// LoadKey reads a key file that [Key.Save] wrote. A missing file is an error
// that wraps fs.ErrNotExist. A file that is not a regular file, that group or
// others have any permission on, or that does not hold exactly one key is
// refused with an error that wraps [ErrKeyFile].
func LoadKey(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("mosaik: load key: %w", err)
	}
	defer f.Close()
	// The permissions are asked of the open file, not of the path: the path may
	// point elsewhere by now.
	info, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("mosaik: load key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Key{}, fmt.Errorf("%w: %s is not a regular file", ErrKeyFile, path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return Key{}, fmt.Errorf("%w: %s has mode %04o, so others than its owner can reach the key; set it to 0600, and replace the key if anyone may have read it",
			ErrKeyFile, path, perm)
	}
	content, err := io.ReadAll(io.LimitReader(f, int64(keyFileSize)+1))
	if err != nil {
		return Key{}, fmt.Errorf("mosaik: load key %s: %w", path, err)
	}
	text, isKey := strings.CutPrefix(strings.TrimSuffix(string(content), "\n"), keyFilePrefix)
	if !isKey {
		return Key{}, fmt.Errorf("%w: %s does not start with %q", ErrKeyFile, path, strings.TrimSpace(keyFilePrefix))
	}
	var seed [Size]byte
	if err := decodeText(&seed, text); err != nil {
		// The cause is left out on purpose: it quotes a character of the secret.
		return Key{}, fmt.Errorf("%w: %s must hold %d lower-case hex digits after %q and nothing else",
			ErrKeyFile, path, textSize, strings.TrimSpace(keyFilePrefix))
	}
	return KeyFromSeed(seed), nil
}

// Save writes k to a new key file of mode 0600 at path. After a nil return the
// file is on disk whole; after a crash in the middle it is there whole or not at
// all. A path that exists is never overwritten: the error wraps fs.ErrExist and
// the old file is as it was.
func (k Key) Save(path string) error {
	if k.private == nil {
		return errors.New("mosaik: save key: the zero key is nobody's")
	}
	content := fmt.Appendf(nil, "%s%x\n", keyFilePrefix, k.private().Seed())
	if err := writeNewFile(path, content); err != nil {
		return fmt.Errorf("mosaik: save key: %w", err)
	}
	return nil
}

// writeNewFile makes a file of mode 0600 at path appear with all its content at
// once. The name is given by a link, not by a rename, because a rename replaces
// what is there and a link fails.
func writeNewFile(path string, content []byte) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, name+".*.tmp") // created with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// PeerID returns the public half of k.
func (k Key) PeerID() PeerID {
	var p PeerID
	if k.private != nil {
		copy(p[:], k.private()[ed25519.SeedSize:])
	}
	return p
}

// IsZero reports whether k is the zero Key.
func (k Key) IsZero() bool { return k.private == nil }

// Sign returns the 64-byte Ed25519 signature of message in a fresh slice.
// Equal keys and messages give equal signatures. The message is signed as it
// is: one that could mean something elsewhere must say in its first bytes what
// it is meant for.
func (k Key) Sign(message []byte) []byte {
	return ed25519.Sign(k.private(), message)
}

// Verify reports whether signature is k's own signature of message.
func (k Key) Verify(message, signature []byte) bool {
	return k.PeerID().Verify(message, signature)
}

// Signer returns the key as the standard library's certificates and TLS want
// it: an ed25519.PrivateKey. It shares memory with k and must not be changed.
// As with Sign, asking the zero Key is a bug that panics.
func (k Key) Signer() crypto.Signer { return k.private() }

// String names the peer that k belongs to and keeps the secret out.
func (k Key) String() string { return "key of peer " + k.PeerID().Short() }

// GoString is String: without it, %#v would print the secret.
func (k Key) GoString() string { return k.String() }
