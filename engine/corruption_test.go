package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// listFiles returns every file below dir with its size.
func listFiles(t testing.TB, fs vfs.FS, dir string, into map[string]int64) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			listFiles(t, fs, path, into)
		} else {
			into[path] = info.Size()
		}
	}
}

func flip(t testing.TB, fs vfs.FS, path string, offset int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

// contents reads every record of every key.
func contents(ctx context.Context, e *engine.Engine) (map[string]string, error) {
	all := make(map[string]string)
	for _, g := range e.Groups() {
		for _, k := range g.Keys() {
			for run, err := range g.Scan(ctx, log.Query{Key: k.Key}) {
				if err != nil {
					return nil, err
				}
				for seq, p := range run.Records() {
					all[fmt.Sprintf("%s/%s/%d", g.Name(), k.Key, seq)] = string(p)
				}
			}
		}
	}
	return all, nil
}

// TestFlippedByte flips one byte in the files of a closed store, in each kind of
// file at many places, and opens the store again: either the flip is harmless,
// and then every record is as it was, or it is reported as corruption.
func TestFlippedByte(t *testing.T) { synctest.Test(t, flippedByte) }

func flippedByte(t *testing.T) {
	ctx := t.Context()
	fs := vfs.NewCrashableMem()
	for range 3 { // several opens leave several tables, manifests and log files
		e := mustOpen(t, "node", smallBuffers(fs))
		if err := e.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			payload := []byte(fmt.Sprintf("%d %s", i, strings.Repeat("x", i*97%3000)))
			if _, err := e.Append(ctx, identity.NewID(fmt.Sprint(i%7)), payload); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, e)
	}
	e := mustOpen(t, "node", smallBuffers(fs))
	want, err := contents(ctx, e)
	if err != nil || len(want) != 180 {
		t.Fatal(len(want), err)
	}
	mustClose(t, e)

	files := make(map[string]int64)
	listFiles(t, fs, "node", files)
	rng := rand.New(rand.NewPCG(7, 7))
	harmless, reported := map[string]int{}, map[string]int{}
	for path, size := range files {
		kind := path[strings.LastIndexAny(path, "./")+1:]
		if size == 0 {
			continue
		}
		for range rounds(30) {
			offset := rng.Int64N(size)
			if rng.IntN(2) == 0 { // headers and the used part of preallocated files lie in front
				offset = rng.Int64N(min(size, 4096))
			}
			clone := fs.CrashClone(vfs.CrashCloneCfg{})
			flip(t, clone, path, offset)
			where := fmt.Sprintf("%s at %d of %d", path, offset, size)
			got, err := func() (map[string]string, error) {
				e, err := engine.Open("node", smallBuffers(clone))
				if err != nil {
					return nil, err
				}
				defer e.Close()
				if err := e.Recovered(ctx); err != nil {
					return nil, err
				}
				if _, err := e.Check(ctx, nil); err != nil {
					return nil, err
				}
				return contents(ctx, e)
			}()
			if err != nil {
				var c *log.CorruptionError
				if !errors.As(err, &c) && !errors.Is(err, log.ErrNewerFormat) {
					t.Errorf("%s: not reported as corruption: %v", where, err)
				}
				reported[kind]++
				continue
			}
			harmless[kind]++
			if len(got) != len(want) {
				t.Errorf("%s: %d records, want %d", where, len(got), len(want))
			}
			for k, v := range got {
				if want[k] != v {
					t.Errorf("%s: record %s differs", where, k)
				}
			}
		}
	}
	t.Logf("reported %v, harmless %v", reported, harmless)
	if len(reported) < 3 {
		t.Errorf("only %v were ever reported: does the test reach the data?", reported)
	}
}
