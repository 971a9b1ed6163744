package main

import (
	"fmt"
	"io"
	"os"
)

// readBounded reads what an argument names, of at most limit bytes: a file, or standard
// input for -.
func readBounded(g *globals, path string, limit int) ([]byte, error) {
	if path == "-" {
		return readAtMost(g.in, "standard input", limit)
	}
	return readFileBounded(path, limit)
}

// readFileBounded reads a file of at most limit bytes.
func readFileBounded(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAtMost(f, path, limit)
}

func readAtMost(r io.Reader, name string, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, err
}
