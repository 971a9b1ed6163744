package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/log"
)

// newSegmentFetchCmd returns the verb that writes a segment to a file.
func newSegmentFetchCmd(g *globals) *cobra.Command {
	var of groupFlags
	var to string
	cmd := &cobra.Command{
		Use:   "fetch SEGMENT --to FILE",
		Short: "Write the bytes of a sealed segment to a file",
		Long: `Writes the canonical bytes of a segment (docs/format/segment.md), the same on every
member, and compares them with the hash that the group has committed. An archived
segment is restored from the shards of several members; a directory, whose node has
nobody to ask, cannot do that for one of several members. With --to - it goes to
standard output.

A file appears under its name only when it is complete and durable.`,
		Example: `  mosaik-node segment fetch 3 --node http://127.0.0.1:7070 --to segment3`,
		Args:    exactly("SEGMENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := segmentNumber(cmd, "SEGMENT", args[0])
			if err != nil {
				return err
			}
			if to == "" {
				return usage(cmd, errors.New("--to FILE or --to - is missing"))
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				list, err := s.Segments(ctx, of.group)
				if err != nil {
					return err
				}
				one, err := oneSegment(&list, n)
				if err != nil {
					return err
				}
				err = writeTo(to, g.out, func(w io.Writer) error {
					hash := blake3.New(len(log.Digest{}), nil)
					if err := s.WriteSegment(ctx, of.group, n, io.MultiWriter(w, hash)); err != nil {
						return err
					}
					if got := log.Digest(hash.Sum(nil)); got != one.Hash {
						return &log.CorruptionError{Group: list.Group, Commit: one.First, Err: fmt.Errorf("segment %d hashes to %s, its manifest has %s", n, got, one.Hash)}
					}
					return nil
				})
				if err == nil {
					fmt.Fprintf(g.err, "segment %d: commits %d to %d, %d bytes, as their hash\n", n, one.First, one.Last, one.Bytes)
				}
				return err
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&to, "to", "", "file to write, or - for standard output")
	return cmd
}

// newSegmentScrubCmd returns the verb that mends shards.
func newSegmentScrubCmd(g *globals) *cobra.Command {
	var of groupFlags
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read a node's shards and make anew what is missing or rotten",
		Long: `Reads every shard that the node keeps of the group's segments, compares it with the
manifests, and makes those anew that are missing or rotten: from the store, or, of
archived segments, from the shards of other members. A running node does this by
itself once a day.

Of what cannot be made anew it says why, and ends with exit code 1.`,
		Example: `  mosaik-node segment scrub --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				r, err := s.Scrub(ctx, of.group)
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, r)
				}
				_, err = fmt.Fprintf(g.out, "group %s: %d shards, %d bytes read, %d made anew\n", of.group, r.Shards, r.Bytes, r.Mended)
				return err
			})
		},
	}
	of.addTo(cmd)
	return cmd
}
