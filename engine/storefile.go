package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The store file says what the directory is. It is text, so that an operator
// can read it, and ends in a digest of itself:
//
//	mosaik store
//	format 5
//	host <hostname>
//	peer <hex>
//	members <hex> ...
//	number <n>, of the node among the members (log.Member)
//	incarnation <n>, how often the node has joined, or come back without its disk
//	committee <seat>:<number>:<hex> ..., who had the seats when the node joined; empty: the founders
//	secret <hex>, Options.Secret; zeros: none
//	validators <hex> ..., Options.Validators
//	spread <n>
//	segment <bytes>
//	named <quoted name> ...
//	sum <BLAKE3 hex of all lines above>
//
// Formats 3 and 4 have no number, which is the place among the founders, and no
// committee; format 3 has no validators.
const (
	storeFileName = "MOSAIK"
	storeFormat   = 5
	// oldestFormat is the oldest that is read: the next writing makes it storeFormat.
	oldestFormat = 3
)

type storeFile struct {
	host    string // name of the machine; part of dragonboat's paths, see raft.go
	peer    identity.PeerID
	members []identity.PeerID
	number  uint64 // of the peer; founders from 1
	// incarnation tells the replicas of a member apart that has lost its disk (rejoin.go).
	incarnation uint64
	committee   []log.Member // Readmission.Committee
	secret      identity.ID
	validators  []identity.ID
	spread      int
	segment     int64 // Options.SegmentBytes
	named       []string
}

func (s *storeFile) encode() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "mosaik store\nformat %d\nhost %s\npeer %s\nmembers", storeFormat, strconv.Quote(s.host), s.peer)
	for _, m := range s.members {
		fmt.Fprintf(&b, " %s", m)
	}
	fmt.Fprintf(&b, "\nnumber %d\nincarnation %d\ncommittee", s.number, s.incarnation)
	for _, m := range s.committee {
		fmt.Fprintf(&b, " %d:%d:%s", m.Seat, m.Number, m.Peer)
	}
	fmt.Fprintf(&b, "\nsecret %s\nvalidators", s.secret)
	for _, v := range s.validators {
		fmt.Fprintf(&b, " %s", v)
	}
	fmt.Fprintf(&b, "\nspread %d\nsegment %d\nnamed", s.spread, s.segment)
	for _, n := range s.named {
		fmt.Fprintf(&b, " %s", strconv.Quote(n))
	}
	b.WriteByte('\n')
	fmt.Fprintf(&b, "sum %s\n", log.Sum([]byte(b.String())))
	return []byte(b.String())
}

func decodeStoreFile(text string) (*storeFile, error) {
	rest, ok := strings.CutPrefix(text, "mosaik store\n")
	if !ok {
		return nil, errors.New("does not start with \"mosaik store\"")
	}
	field := func(name string) (string, error) {
		line, tail, ok := strings.Cut(rest, "\n")
		value, found := strings.CutPrefix(line, name)
		if !ok || !found || (value != "" && value[0] != ' ') {
			return "", fmt.Errorf("line %q where %q is expected", line, name)
		}
		rest = tail
		return strings.TrimPrefix(value, " "), nil
	}
	// The format comes first and is judged before the sum: a later format may sum
	// differently.
	format, err := field("format")
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(format)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("format %q is not a number from 1", format)
	}
	if n < oldestFormat {
		return nil, fmt.Errorf("%w: store format %d, this program knows %d: its groups would have other ids: copy the records into a new store, reading them with the version that wrote them", log.ErrOlderFormat, n, storeFormat)
	}
	if n > storeFormat {
		return nil, fmt.Errorf("%w: store format %d, this program knows %d: open it with a newer mosaik", log.ErrNewerFormat, n, storeFormat)
	}
	body, sum, ok := strings.Cut(text, "\nsum ")
	if !ok || log.Sum([]byte(body+"\n")).String()+"\n" != sum {
		return nil, errors.New("its lines do not match its sum")
	}
	var s storeFile
	host, err := field("host")
	if err != nil {
		return nil, err
	}
	if s.host, err = strconv.Unquote(host); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	peer, err := field("peer")
	if err != nil {
		return nil, err
	}
	if s.peer, err = identity.ParsePeerID(peer); err != nil {
		return nil, err
	}
	members, err := field("members")
	if err != nil {
		return nil, err
	}
	for _, m := range strings.Fields(members) {
		id, err := identity.ParsePeerID(m)
		if err != nil {
			return nil, err
		}
		s.members = append(s.members, id)
	}
	s.number = uint64(slices.Index(s.members, s.peer) + 1)
	if n > 4 {
		number, err := field("number")
		if err != nil {
			return nil, err
		}
		if s.number, err = strconv.ParseUint(number, 10, 32); err != nil || s.number == 0 || s.number > log.MaxMemberNumber {
			return nil, fmt.Errorf("number: %q is no number of a member", number)
		}
	}
	incarnation, err := field("incarnation")
	if err != nil {
		return nil, err
	}
	if s.incarnation, err = strconv.ParseUint(incarnation, 10, 32); err != nil {
		return nil, fmt.Errorf("incarnation: %w", err)
	}
	if n > 4 {
		committee, err := field("committee")
		if err != nil {
			return nil, err
		}
		for _, m := range strings.Fields(committee) {
			var x log.Member
			var peer string
			_, err := fmt.Sscanf(m, "%d:%d:%s", &x.Seat, &x.Number, &peer)
			if err == nil {
				x.Peer, err = identity.ParsePeerID(peer)
			}
			if err != nil {
				return nil, fmt.Errorf("committee: %q: %w", m, err)
			}
			s.committee = append(s.committee, x)
		}
	}
	secret, err := field("secret")
	if err != nil {
		return nil, err
	}
	if s.secret, err = identity.ParseID(secret); err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	if n > 3 {
		validators, err := field("validators")
		if err != nil {
			return nil, err
		}
		for _, v := range strings.Fields(validators) {
			id, err := identity.ParseID(v)
			if err != nil {
				return nil, fmt.Errorf("validators: %w", err)
			}
			s.validators = append(s.validators, id)
		}
	}
	spread, err := field("spread")
	if err != nil {
		return nil, err
	}
	if s.spread, err = strconv.Atoi(spread); err != nil {
		return nil, fmt.Errorf("spread: %w", err)
	}
	segment, err := field("segment")
	if err != nil {
		return nil, err
	}
	if s.segment, err = strconv.ParseInt(segment, 10, 64); err != nil || s.segment < MinSegmentBytes || s.segment > MaxSegmentBytes {
		return nil, fmt.Errorf("segment: %q is no size of segments", segment)
	}
	named, err := field("named")
	if err != nil {
		return nil, err
	}
	for named != "" {
		quoted, err := strconv.QuotedPrefix(named)
		if err != nil {
			return nil, fmt.Errorf("named: %w", err)
		}
		name, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("named: %w", err)
		}
		s.named = append(s.named, name)
		named = strings.TrimPrefix(named[len(quoted):], " ")
	}
	return &s, nil
}

// readStoreFile returns the store file of dir, or ErrNoStore.
func readStoreFile(fs vfs.FS, dir string) (*storeFile, error) {
	path := fs.PathJoin(dir, storeFileName)
	text, err := readFile(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoStore, dir)
	}
	if err != nil {
		return nil, err
	}
	s, err := decodeStoreFile(string(text))
	if errors.Is(err, log.ErrNewerFormat) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		return nil, &log.CorruptionError{File: path, Err: err}
	}
	return s, nil
}

// writeStoreFile replaces the store file.
func writeStoreFile(fs vfs.FS, dir string, s *storeFile) error {
	return writeFile(fs, dir, storeFileName, s.encode())
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// reconcile holds the options against the store file and fills in what they
// leave open. It reports whether the file has to be written again, because
// named groups were added.
func (s *storeFile) reconcile(o *Options) (grown bool, err error) {
	mismatch := func(field string, have, want any) error {
		return fmt.Errorf("%w: %s is %v, the store was made with %v", ErrMismatch, field, have, want)
	}
	if o.Peer.IsZero() {
		o.Peer = s.peer
	}
	if o.Peer != s.peer {
		return false, mismatch("Peer", o.Peer, s.peer)
	}
	if o.Members == nil {
		o.Members = s.members
	}
	if !slices.Equal(o.Members, s.members) {
		return false, mismatch("Members", o.Members, s.members)
	}
	if o.Secret.IsZero() {
		o.Secret = s.secret
	}
	if o.Secret != s.secret {
		return false, fmt.Errorf("%w: Secret is not the one the store was made with", ErrMismatch)
	}
	if o.Validators == nil {
		o.Validators = s.validators
	}
	if !slices.Equal(o.Validators, s.validators) {
		return false, fmt.Errorf("%w: Validators are %d, the store was made with %d, or with others: a group that asks for something else is another group", ErrMismatch, len(o.Validators), len(s.validators))
	}
	if o.Spread == 0 {
		o.Spread = s.spread
	}
	if o.Spread != s.spread {
		return false, mismatch("Spread", o.Spread, s.spread)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = s.segment
	}
	if o.SegmentBytes != s.segment {
		return false, mismatch("SegmentBytes", o.SegmentBytes, s.segment)
	}
	for _, name := range o.Named {
		if !slices.Contains(s.named, name) {
			s.named = append(s.named, name)
			grown = true
		}
	}
	o.Named, o.number, o.incarnation, o.committee = s.named, s.number, s.incarnation, s.committee
	return grown, nil
}

// MembersOf returns the members of the store in dir, which nobody has to have open;
// fs nil is the operating system's. ErrNoStore: there is none.
func MembersOf(fs vfs.FS, dir string) ([]identity.PeerID, error) {
	if fs == nil {
		fs = vfs.Default
	}
	s, err := readStoreFile(fs, dir)
	if err != nil {
		return nil, err
	}
	return s.members, nil
}
