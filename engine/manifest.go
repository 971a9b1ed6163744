package engine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/log"
)

// Pebble takes a damaged record of its manifest for the torn end of it, and
// opens the store as it was before: tables would be missing without a word. A
// clean close therefore seals the manifest, and the next open checks the seal
// and breaks it. After a crash there is no seal; then a torn end is a legal one,
// and what is missing in the store is still in the Raft log (checkRaftLog makes
// sure of that).
//
// The seal is text, a line each for the manifest and for pebble's options file:
// name, size, digest.
const sealFileName = "SEAL"

// manifestLines describes the store's current manifest and options.
func manifestLines(fs vfs.FS, dir string) (string, error) {
	desc, err := pebble.Peek(fs.PathJoin(dir, storeDirName), fs)
	if err != nil {
		return "", err
	}
	var lines string
	for _, path := range []string{desc.ManifestFilename, desc.OptionsFilename} {
		content, err := readFile(fs, path)
		if err != nil {
			return "", err
		}
		lines += fmt.Sprintf("%s %d %s\n", fs.PathBase(path), len(content), log.Sum(content))
	}
	return lines, nil
}

func sealManifest(fs vfs.FS, dir string) error {
	lines, err := manifestLines(fs, dir)
	if err != nil {
		return err
	}
	return writeFile(fs, dir, sealFileName, []byte(lines))
}

// checkManifest checks the seal, if there is one, and breaks it.
func checkManifest(fs vfs.FS, dir string) error {
	path := fs.PathJoin(dir, sealFileName)
	seal, err := readFile(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines, err := manifestLines(fs, dir)
	if err != nil {
		return &log.CorruptionError{File: fs.PathJoin(dir, storeDirName), Err: fmt.Errorf("the manifest cannot be read: %w", err)}
	}
	if lines != string(seal) {
		return &log.CorruptionError{File: fs.PathJoin(dir, storeDirName),
			Err: fmt.Errorf("its manifest and options are not what they were when it was closed: %s says %q, they are %q", path, seal, lines)}
	}
	if err := fs.Remove(path); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// makeDir makes dir with all its parents, and makes sure that they are still
// there after a power cut.
func makeDir(fs vfs.FS, dir string) error {
	var parents []string // of what is missing, nearest first
	for at := dir; ; {
		if _, err := fs.Stat(at); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		parent := fs.PathDir(at)
		if parent == at {
			break
		}
		parents = append(parents, parent)
		at = parent
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, p := range parents {
		if err := syncDir(fs, p); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads a small file.
func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(f)
	return content, errors.Join(err, f.Close())
}

// writeFile replaces a small file of dir: it is the old one or the new one at any
// moment, also across a power cut.
func writeFile(fs vfs.FS, dir, name string, content []byte) error {
	path := fs.PathJoin(dir, name)
	f, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(fs, dir)
}
