//go:build !linux

package bench

import (
	"os"
	"runtime"
)

// What follows does as well as the platform allows: the table says less there.

func flushDisks() {}

func fdatasync(f *os.File) error { return f.Sync() }

func forget(*os.File) error { return nil }

func allocated(info os.FileInfo) int64 { return info.Size() }

func resident() (now, peak int64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased), int64(m.Sys)
}

func loadAverage() float64 { return 0 }

func filesystemOf(string) string { return "unknown" }

func freeBytes(string) int64 { return -1 }
