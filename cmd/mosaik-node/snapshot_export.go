package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

// newSnapshotExportCmd returns the verb that exports a group.
func newSnapshotExportCmd(g *globals) *cobra.Command {
	var of groupFlags
	var to string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write a group's whole history to a file",
		Long: `Writes all commits of a group, the sealed segments with their manifests and what is
not sealed yet, to one file that can be checked anywhere (snapshot verify) and from
which the group can be restored (snapshot import). With --to - it goes to standard
output.

A file appears under its name only when it is complete and durable.`,
		Example: `  mosaik-node snapshot export --node http://127.0.0.1:7070 --to g0.mosaik
  mosaik-node snapshot export --dir data --to - | ssh backup 'cat > g0.mosaik'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usage(cmd, errors.New("--to FILE or --to - is missing"))
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				screen := newScreen(g.err)
				var head log.Head
				err := writeTo(to, g.out, func(w io.Writer) (err error) {
					head, err = s.Export(ctx, of.group, w, screen.progress("commits exported"))
					return err
				})
				screen.clear()
				if err == nil {
					fmt.Fprintf(g.err, "exported commits 1 to %d of group %s\n", head.Number, of.group)
				}
				return err
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&to, "to", "", "file to write, or - for standard output")
	return cmd
}

// writeTo lets write fill a file that gets its name when it is complete.
func writeTo(path string, out io.Writer, write func(io.Writer) error) error {
	if path == "-" {
		w := bufio.NewWriterSize(out, 1<<20)
		return errors.Join(write(w), w.Flush())
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
