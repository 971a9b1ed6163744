package engine

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Two layouts for rows of which every version is kept, on the store as it is: all
// versions under key and commit, newest first; and the newest in a space of its
// own, where the commit that replaces it finds it and moves it to the history.
// docs/decisions/0004 draws on this.

const (
	versionedRows    = 200_000
	versionedCommits = 10_000
	versionedPer     = 100 // rows a commit writes
)

// versionLayout is one of the two.
type versionLayout struct {
	write func(b *pebble.Batch, key, commit uint64, value []byte) error
	get   func(key uint64) (found bool, err error)
	past  func(key, commit uint64) (found bool, err error)
}

func BenchmarkVersions(b *testing.B) {
	for _, layout := range []struct {
		name string
		of   func(db *pebble.DB) versionLayout
	}{{"under-key-and-commit", underKeyAndCommit}, {"newest-apart", newestApart}} {
		b.Run(layout.name, func(b *testing.B) {
			o := (&Options{FS: vfs.NewMem(), CacheBytes: 32 << 20}).withDefaults()
			sizes := sizesFor(o, "")
			cache := pebble.NewCache(o.CacheBytes + 2*sizes.memTable)
			defer cache.Unref()
			db, err := openStore("versions", o, sizes, cache)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			l := layout.of(db.DB)
			rng := rand.New(rand.NewPCG(1, 2))
			key := func() uint64 { return rng.Uint64N(versionedRows) }
			value := make([]byte, 64)
			commit := uint64(0)
			write := func() {
				commit++
				batch := db.NewBatch()
				for range versionedPer {
					binary.LittleEndian.PutUint64(value, rng.Uint64())
					if err := l.write(batch, key(), commit, value); err != nil {
						b.Fatal(err)
					}
				}
				if err := batch.Commit(pebble.NoSync); err != nil {
					b.Fatal(err)
				}
			}
			for range versionedCommits {
				write()
			}
			b.Run("write", func(b *testing.B) {
				for range b.N/versionedPer + 1 {
					write()
				}
			})
			b.Run("get", func(b *testing.B) {
				for range b.N {
					if _, err := l.get(key()); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("past", func(b *testing.B) {
				for range b.N {
					if _, err := l.past(key(), rng.Uint64N(versionedCommits)+1); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func underKeyAndCommit(db *pebble.DB) versionLayout {
	row := func(key, commit uint64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{'v'}, key), ^commit)
	}
	past := func(key, commit uint64) (bool, error) {
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: row(key, commit), UpperBound: row(key+1, ^uint64(0))})
		if err != nil {
			return false, err
		}
		return it.First(), it.Close()
	}
	return versionLayout{
		write: func(b *pebble.Batch, key, commit uint64, value []byte) error {
			if _, err := past(key, ^uint64(0)); err != nil { // what is replaced goes out of the state's digest
				return err
			}
			return b.Set(row(key, commit), value, nil)
		},
		get:  func(key uint64) (bool, error) { return past(key, ^uint64(0)) },
		past: past,
	}
}

func newestApart(db *pebble.DB) versionLayout {
	row := func(key uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'v'}, key) }
	old := func(key, commit uint64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{'w'}, key), commit)
	}
	get := func(key uint64) (commit uint64, value []byte, err error) {
		stored, closer, err := db.Get(row(key))
		if errors.Is(err, pebble.ErrNotFound) {
			return 0, nil, nil
		}
		if err != nil {
			return 0, nil, err
		}
		return binary.BigEndian.Uint64(stored), append([]byte(nil), stored[8:]...), closer.Close()
	}
	return versionLayout{
		write: func(b *pebble.Batch, key, commit uint64, value []byte) error {
			before, replaced, err := get(key)
			if err == nil && before != 0 {
				err = b.Set(old(key, before), replaced, nil)
			}
			if err != nil {
				return err
			}
			return b.Set(row(key), append(binary.BigEndian.AppendUint64(nil, commit), value...), nil)
		},
		get: func(key uint64) (bool, error) {
			commit, _, err := get(key)
			return commit != 0, err
		},
		past: func(key, commit uint64) (bool, error) {
			if at, _, err := get(key); err != nil || at == 0 || at <= commit {
				return at != 0, err
			}
			it, err := db.NewIter(&pebble.IterOptions{LowerBound: old(key, 0), UpperBound: old(key, commit+1)})
			if err != nil {
				return false, err
			}
			return it.Last(), it.Close()
		},
	}
}
