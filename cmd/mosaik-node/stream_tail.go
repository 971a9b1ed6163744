package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/log"
)

// tailFlags are what stream tail reads, and how it prints it.
type tailFlags struct {
	ref                    api.Ref
	from                   string
	since, until, contains string
	every, limit           uint64
	follow, raw, pointers  bool
}

// newStreamTailCmd returns the verb that reads records.
func newStreamTailCmd(g *globals) *cobra.Command {
	var (
		of storeFlags
		f  tailFlags
	)
	cmd := &cobra.Command{
		Use:   "tail NAME",
		Short: "Read a stream from a position, and perhaps follow it",
		Long: `Prints the records of a stream from a position to its end, one a line: seq, time
of the commit, value. With --follow it then waits for more.

Where to start, --from:
  earliest   the first record
  latest     what is appended from now on (with --follow)
  seq:N      the record numbered N
  commit:N   the first record in commit N or later
  time:T     the first record at T or later, like time:2026-01-02T03:04:05Z
  mosaik:... the record a pointer points to, which is checked first

With --json a line is an object: seq, commit, time, and the payload as "value"
(codecs json and cbor), as "text" or as "base64". With --raw it is the payload as
it is and a newline, which stream append takes back.`,
		Example: `  mosaik-node stream tail oracle.price --dir data
  mosaik-node stream tail oracle.price --node http://127.0.0.1:7070 --from latest --follow
  mosaik-node stream tail oracle.price --dir data --since 2026-01-02T00:00:00Z --every 100 --json`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.ref.Name = args[0]
			q, err := f.query()
			if err != nil {
				return usage(cmd, err)
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error { return tail(ctx, g, s, &f, q) })
		},
	}
	of.addTo(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.ref.Group, "group", "", "group that holds the stream (default: the one its key belongs to)")
	flags.StringVar(&f.from, "from", "earliest", "position to start at")
	flags.StringVar(&f.since, "since", "", "only records at this time or later, RFC 3339")
	flags.StringVar(&f.until, "until", "", "only records before this time, RFC 3339")
	flags.StringVar(&f.contains, "contains", "", "only records whose payload contains this")
	flags.Uint64Var(&f.every, "every", 0, "only records whose seq is a multiple of this")
	flags.Uint64Var(&f.limit, "limit", 0, "end after so many records (default: no limit)")
	flags.BoolVar(&f.follow, "follow", false, "wait for more at the end")
	flags.BoolVar(&f.raw, "raw", false, "print payloads as they are")
	flags.BoolVar(&f.pointers, "pointers", false, "print the pointer of each record, too")
	return cmd
}

// query turns the flags into a query. Its errors are those of the command line.
func (f *tailFlags) query() (log.Query, error) {
	from, err := log.ParsePosition(f.from)
	if err != nil {
		return log.Query{}, fmt.Errorf("--from: %w", err)
	}
	q := log.Query{Key: f.ref.Key(), From: from, Follow: f.follow, Filter: log.Filter{Every: f.every}}
	if q.Filter.Since, err = parseTime("--since", f.since); err != nil {
		return q, err
	}
	if q.Filter.Until, err = parseTime("--until", f.until); err != nil {
		return q, err
	}
	if f.contains != "" {
		q.Filter.Match = func(payload []byte) bool { return bytes.Contains(payload, []byte(f.contains)) }
	}
	if f.raw && f.pointers {
		return q, errors.New("--raw and --pointers do not go together")
	}
	return q, q.Validate()
}

// parseTime reads the time of a flag; zero if it is not given.
func parseTime(flag, value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		return t, fmt.Errorf("%s: %q is not a time like 2006-01-02T15:04:05.999Z", flag, value)
	}
	return t, nil
}

// tail prints the records.
func tail(ctx context.Context, g *globals, s store, f *tailFlags, q log.Query) error {
	stream, err := s.Stream(ctx, f.ref)
	if err != nil && !(f.follow && errors.Is(err, log.ErrNotFound)) {
		return err
	}
	render := api.NewRenderer(stream.Codec, f.pointers)
	out := bufio.NewWriterSize(g.out, 64<<10)
	left := f.limit
	if left == 0 {
		left = math.MaxUint64
	}
	var line []byte
	for run, err := range s.Scan(ctx, f.ref, q) {
		if err != nil {
			return errors.Join(out.Flush(), err)
		}
		if stream.Name == "" && f.follow {
			// It did not exist yet; now it has a codec. A log that is still unknown has no
			// name, which is no reason not to show it.
			stream, _ = s.Stream(ctx, f.ref)
			render.Codec = stream.Codec
		}
		for seq, payload := range run.Records() {
			if left == 0 {
				break
			}
			if !q.Filter.Keeps(seq, payload) {
				continue
			}
			left--
			line = f.appendLine(line[:0], g.json, render, &run, seq, payload)
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
		if f.follow {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if left == 0 {
			break
		}
	}
	return out.Flush()
}

// appendLine appends one record as the flags want it.
func (f *tailFlags) appendLine(dst []byte, json bool, render *api.Renderer, run *log.Run, seq uint64, payload []byte) []byte {
	switch {
	case f.raw:
		dst = append(dst, payload...)
	case json:
		dst = render.Append(dst, run, seq, payload)
	default:
		dst = strconv.AppendUint(dst, seq, 10)
		dst = append(dst, '\t')
		dst = time.Unix(0, run.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '\t')
		dst = append(dst, render.Text(payload)...)
		if f.pointers {
			dst = append(dst, '\t')
			dst = append(dst, run.Pointer(seq).String()...)
		}
	}
	return append(dst, '\n')
}
