package bench

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// rowState is about what the state digest costs those who apply.
const rowState = "state"

// stateSamples is how many samples of the apply path are taken at the least. The
// processor's time is sampled a hundred times a second.
const stateSamples = 30

// stateShare has one replica apply the load of the row "map" while its processor
// time is sampled, and reports which part of the apply path's samples lie in the
// state digest. Samples count what is computed and not what is waited for, so
// neither the disk nor what else the machine does is in the share.
func (s *session) stateShare(ctx context.Context) (_ []outcome, err error) {
	dir := s.newDir("state")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := openMapNodes(ctx, nodeOptions{dir: dir, replicas: 1, groups: 1, keys: 1}, drawn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	l := s.loadOf(rowMap)
	if _, err := l.warm().run(ctx, m, 1<<56); err != nil {
		return nil, err
	}
	l.time = 3 * s.Time // a share of few samples says little
	var total applySamples
	entries := 0
	for end := time.Now().Add(patience); total.apply < stateSamples; {
		samples, filled, err := s.sampleApply(ctx, m, l)
		if err != nil {
			return nil, err
		}
		total.apply += samples.apply
		total.digest += samples.digest
		entries += filled.Records
		if time.Now().After(end) {
			return nil, fmt.Errorf("mosaik: bench: only %d samples of the apply path within %v", total.apply, patience)
		}
	}
	const microsPerSample = 10_000
	return []outcome{{rowState, subjectMosaik, Share, Sample{
		Value: float64(total.digest) / float64(total.apply), Records: entries,
		Counters: map[string]float64{
			"samples":             float64(total.apply),
			"apply_us_per_entry":  float64(total.apply) * microsPerSample / float64(entries),
			"digest_us_per_entry": float64(total.digest) * microsPerSample / float64(entries),
		},
	}}}, nil
}

// sampleApply puts the load on the map under the CPU profiler.
func (s *session) sampleApply(ctx context.Context, m *mapNodes, l load) (applySamples, Sample, error) {
	var profile bytes.Buffer
	if err := pprof.StartCPUProfile(&profile); err != nil {
		return applySamples{}, Sample{}, fmt.Errorf("mosaik: bench: profile: %w", err)
	}
	filled, err := m.fill(ctx, l)
	pprof.StopCPUProfile()
	if err != nil {
		return applySamples{}, Sample{}, err
	}
	if s.ProfileDir != "" {
		name := fmt.Sprintf("%s-%s-%d.pprof", rowState, subjectMosaik, s.run+1)
		if err := os.WriteFile(filepath.Join(s.ProfileDir, name), profile.Bytes(), 0o644); err != nil {
			return applySamples{}, Sample{}, fmt.Errorf("mosaik: bench: profile: %w", err)
		}
	}
	samples, err := countApply(&profile)
	return samples, filled, err
}

// applySamples are samples of processor time on the apply path of replicas, and
// those of them in the state digest.
type applySamples struct{ apply, digest int }

// countApply counts the samples of a CPU profile of this program.
func countApply(profile io.Reader) (applySamples, error) {
	var total applySamples
	p, err := readCPUProfile(profile)
	if err != nil {
		return total, fmt.Errorf("mosaik: bench: profile: %w", err)
	}
	for i := range p.samples {
		s := &p.samples[i]
		if !p.within(s, isApply) {
			continue
		}
		total.apply += s.count
		if p.within(s, isDigest) {
			total.digest += s.count
		}
	}
	return total, nil
}

// isApply chooses what turns agreed entries into commits.
func isApply(function string) bool { return strings.HasSuffix(function, "/engine.(*replica).update") }

// isDigest chooses what keeps the state digest: making a row's element, stretching
// and adding it, and the digest of the lanes.
func isDigest(function string) bool {
	return strings.HasSuffix(function, "/log.(*Fold).count") || strings.Contains(function, "/log.(*StateHash).")
}

// cpuProfile is what is read here of a profile as package pprof writes it: a
// gzipped protocol buffer, described by profile.proto of github.com/google/pprof.
type cpuProfile struct {
	samples   []cpuSample
	lines     map[uint64][]uint64 // functions of a location: more than one where calls are inlined
	functions map[uint64]uint64   // their names, in text
	text      []string
}

type cpuSample struct {
	locations []uint64
	count     int
}

var errProfile = errors.New("not a CPU profile")

// within reports whether the sample was taken in a function that is chosen, or in
// one that it has called.
func (p *cpuProfile) within(s *cpuSample, chosen func(function string) bool) bool {
	for _, location := range s.locations {
		for _, function := range p.lines[location] {
			if name := p.functions[function]; name < uint64(len(p.text)) && chosen(p.text[name]) {
				return true
			}
		}
	}
	return false
}

func readCPUProfile(in io.Reader) (*cpuProfile, error) {
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	message, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, err
	}
	p := &cpuProfile{lines: make(map[uint64][]uint64), functions: make(map[uint64]uint64)}
	const sample, location, function, text = 2, 4, 5, 6
	return p, eachField(message, func(field protowire.Number, _ uint64, b []byte) error {
		switch field {
		case sample:
			return p.readSample(b)
		case location:
			return p.readLocation(b)
		case function:
			return p.readFunction(b)
		case text:
			p.text = append(p.text, string(b))
		}
		return nil
	})
}

func (p *cpuProfile) readSample(message []byte) error {
	const location, value = 1, 2 // the first value is the count
	var s cpuSample
	var values []uint64
	err := eachField(message, func(field protowire.Number, n uint64, b []byte) (err error) {
		switch field {
		case location:
			s.locations, err = appendNumbers(s.locations, n, b)
		case value:
			values, err = appendNumbers(values, n, b)
		}
		return err
	})
	if err == nil && len(values) == 0 {
		err = errProfile
	}
	if err != nil {
		return err
	}
	s.count = int(values[0])
	p.samples = append(p.samples, s)
	return nil
}

func (p *cpuProfile) readLocation(message []byte) error {
	const id, line, lineFunction = 1, 4, 1
	var location uint64
	var functions []uint64
	err := eachField(message, func(field protowire.Number, n uint64, b []byte) error {
		switch field {
		case id:
			location = n
		case line:
			return eachField(b, func(field protowire.Number, n uint64, _ []byte) error {
				if field == lineFunction {
					functions = append(functions, n)
				}
				return nil
			})
		}
		return nil
	})
	p.lines[location] = functions
	return err
}

func (p *cpuProfile) readFunction(message []byte) error {
	const id, name = 1, 2
	var function, text uint64
	err := eachField(message, func(field protowire.Number, n uint64, _ []byte) error {
		switch field {
		case id:
			function = n
		case name:
			text = n
		}
		return nil
	})
	p.functions[function] = text
	return err
}

// appendNumbers appends the numbers of a repeated field: one, or several that are
// packed.
func appendNumbers(to []uint64, n uint64, packed []byte) ([]uint64, error) {
	if packed == nil {
		return append(to, n), nil
	}
	for len(packed) > 0 {
		n, size := protowire.ConsumeVarint(packed)
		if size < 0 {
			return to, protowire.ParseError(size)
		}
		to, packed = append(to, n), packed[size:]
	}
	return to, nil
}

// eachField calls visit with each field of a message: its number, or its bytes,
// which are not nil.
func eachField(message []byte, visit func(field protowire.Number, n uint64, b []byte) error) error {
	for len(message) > 0 {
		field, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		var n uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			if b, size = protowire.ConsumeBytes(message); b == nil {
				b = []byte{}
			}
		default:
			return errProfile
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := visit(field, n, b); err != nil {
			return err
		}
		message = message[size:]
	}
	return nil
}
