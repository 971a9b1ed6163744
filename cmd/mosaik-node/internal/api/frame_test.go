package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Every error has the same name at the other end of the connection.
func TestErrorsTravel(t *testing.T) {
	travel := func(err error) error {
		b, jsonErr := json.Marshal(failureOf(fmt.Errorf("verb: %w", err)))
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		return decodeFailure(b, 0)
	}
	for _, c := range conditions {
		if have := travel(c.err); !errors.Is(have, c.err) {
			t.Errorf("%v arrives as %v", c.err, have)
		}
	}
	want := &log.CorruptionError{File: "000004.sst", Offset: 12, Group: identity.ID{1}, Commit: 7, Err: errors.New("checksum mismatch")}
	var have *log.CorruptionError
	if !errors.As(travel(want), &have) || !reflect.DeepEqual(have, want) {
		t.Errorf("%v arrives as %v", want, have)
	}
	for _, err := range []error{errors.New("x"), &statusError{418, "teapot", "x"}} {
		var have *RemoteError
		if !errors.As(travel(err), &have) || have.Unwrap() != nil || have.Error() == "" {
			t.Errorf("%v arrives as %v", err, travel(err))
		}
	}
	if err := decodeFailure([]byte("<html>Bad Gateway</html>"), 502); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a proxy's page arrives as %v", err)
	}
}

// FuzzFrames: a reader of frames takes any bytes without harm, and what it takes
// for a run or a commit is one.
func FuzzFrames(f *testing.F) {
	group := log.NewMemory(identity.NewID("group"))
	pointer, err := group.Append(f.Context(), identity.NewID("key"), []byte("one"), bytes.Repeat([]byte("x"), 200))
	if err != nil {
		f.Fatal(err)
	}
	c, err := group.Commit(pointer.Commit)
	if err != nil {
		f.Fatal(err)
	}
	stream := appendPreamble(nil, group.ID())
	for run, err := range c.Runs() {
		if err != nil {
			f.Fatal(err)
		}
		stream = appendRunFrame(stream, &run)
	}
	stream = appendFrame(appendCommitFrame(stream, &c), frameIdle, nil)
	f.Add(appendFrame(bytes.Clone(stream), frameEnd, nil))
	f.Add(appendFailureFrame(bytes.Clone(stream), failureOf(log.ErrClosed)))
	f.Add(stream)
	f.Add([]byte(frameMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newFrameReader(bytes.NewReader(b))
		for err == nil {
			var kind byte
			var content []byte
			if kind, content, err = r.next(); err != nil {
				break
			}
			switch kind {
			case frameRun:
				run, err := r.decodeRun(content)
				if err != nil {
					continue
				}
				n := 0
				for range run.Records() {
					n++
				}
				if again := appendRunFrame(nil, &run); n != run.Count || !bytes.Equal(again[frameHeader:], content) {
					t.Fatalf("a run of %d records has %d, or other bytes", run.Count, n)
				}
			case frameCommit:
				if c, err := log.DecodeCommit(content); err == nil && !bytes.Equal(c.AppendTo(nil), content) {
					t.Fatal("a commit has other bytes")
				}
			default:
				t.Fatalf("a frame of kind %d", kind)
			}
		}
		var remote *RemoteError
		var corrupt *log.CorruptionError
		if err != io.EOF && !errors.Is(err, ErrAnswer) && !errors.Is(err, ErrUnreachable) && !errors.As(err, &remote) && !errors.As(err, &corrupt) {
			t.Fatalf("it ends with %v", err)
		}
	})
}
