package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/conf"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/join"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// organismMachines returns the machines of the organisms that are shipped: whatever a
// group's log holds of them can be folded here.
func organismMachines() []log.Machine {
	oracles, joins := oracle.Definition(oracle.Pair{Base: "A", Quote: "B"}), join.Definition()
	return append(oracles.Machines(), joins.Machines()...)
}

// oracleFlags say which oracle is meant, and where it is.
type oracleFlags struct {
	storeFlags
	config, name, group string
	signers             []string
}

func (f *oracleFlags) addOracle(cmd *cobra.Command, signers bool) {
	f.addTo(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.config, "config", "", "the oracle's parameters and sources, TOML (docs/format/oracle.md)")
	fs.StringVar(&f.name, "name", "", "the oracle's instance name, such as oracle-γ.oracle")
	fs.StringVar(&f.group, "group", "", "group that the oracle is in (default the one its keys belong to)")
	if signers {
		fs.StringArrayVar(&f.signers, "signer", nil, "peer whose signatures count; may be repeated")
	}
}

// setup is an oracle as its file says it is.
type setup struct {
	config     organisms.Config
	parameters *oracle.Parameters
	catalog    *oracle.Catalog
	definition organisms.Definition
	admitted   func(identity.PeerID) bool
}

// read reads the oracle's file.
func (f *oracleFlags) read(cmd *cobra.Command) (*setup, error) {
	if f.config == "" || f.name == "" {
		return nil, usage(cmd, errors.New("--config FILE and --name NAME are wanted"))
	}
	file, err := os.Open(f.config)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	s := new(setup)
	if s.parameters, s.catalog, err = oracle.ParseTOML(file); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", conf.ErrConfig, f.config, err)
	}
	s.config, s.definition = oracle.Config(f.name, s.parameters), oracle.Definition(s.parameters.Pairs()...)
	if err := s.config.Validate(); err != nil {
		return nil, usage(cmd, err)
	}
	signers := make(map[identity.PeerID]bool)
	for _, text := range f.signers {
		p, err := identity.ParsePeerID(text)
		if err != nil {
			return nil, usage(cmd, fmt.Errorf("--signer: %w", err))
		}
		signers[p] = true
	}
	s.admitted = func(p identity.PeerID) bool { return signers[p] }
	return s, nil
}

// home returns the group of the oracle.
func (f *oracleFlags) home(st store, s *setup) (log.GroupStore, error) {
	all, err := st.Store(f.group)
	if err != nil {
		return nil, err
	}
	return all.Home(s.definition.Surface[0].Key(s.config.StableID())), nil
}

// newOracleRunCmd returns the verb that runs an oracle.
func newOracleRunCmd(g *globals) *cobra.Command {
	var f oracleFlags
	var key, from string
	var replays []string
	var rounds uint64
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run an oracle: ask its sources and publish signed prices",
		Long: `Opens the oracle in a group, publishing its config there the first time, and then asks all
sources of each pair at the config's cadence. Every round is committed with what each
source said or why it has no price, and the tick that follows from it, signed with --key.
It goes on where it was stopped. A round below the quorum has no tick, and its number is a gap.

A source that replays a file needs the file (--replay), which must be the one the config
has the digest of. With --from the clock is not that of the machine: rounds are as of that
time on, one cadence apart, as fast as they can be committed; --rounds bounds them.`,
		Example: `  mosaik-node oracle run --config oracle.toml --name oracle-γ.oracle --key node.key --node http://127.0.0.1:7070
  mosaik-node oracle run --config replay.toml --name test.oracle --key node.key --dir data --replay ticks.csv --from 2013-01-01T22:00:00Z --rounds 1000`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.read(cmd)
			if err != nil {
				return err
			}
			if key == "" {
				return usage(cmd, errors.New("--key FILE is missing; one is made by: mosaik-node init --dir DIR"))
			}
			signer, err := identity.LoadKey(key)
			if err != nil {
				return err
			}
			var at time.Time
			if from != "" {
				if at, err = time.Parse(time.RFC3339, from); err != nil {
					return usage(cmd, fmt.Errorf("--from: %w", err))
				}
			} else if rounds != 0 {
				return usage(cmd, errors.New("--rounds goes with --from"))
			}
			return f.with(cmd, g, func(ctx context.Context, st store) error {
				group, err := f.home(st, s)
				if err != nil {
					return err
				}
				o, err := organisms.Open(ctx, group, s.config, s.definition)
				if err != nil {
					return err
				}
				fmt.Fprintf(g.err, "oracle    %s\nrevision  %s\nsigner    %s\n", s.config.StableID(), s.config.ContentHash(), signer.PeerID())
				publishers, err := s.publishers(ctx, o, group, replays, signer)
				defer func() {
					for _, u := range publishers {
						err = errors.Join(err, u.Close())
					}
				}()
				if err != nil {
					return err
				}
				report := func(out oracle.Outcome) { _ = printOutcome(g, out) } // who reads has gone
				if from == "" {
					return oracle.Run(ctx, publishers, report)
				}
				for n := uint64(0); (rounds == 0 || n < rounds) && ctx.Err() == nil; n++ {
					for _, u := range publishers {
						out, err := u.Publish(ctx, at)
						if err != nil {
							return err
						}
						if err := printOutcome(g, out); err != nil {
							return err
						}
					}
					at = at.Add(s.parameters.Cadence)
				}
				return nil
			})
		},
	}
	f.make = true
	f.addOracle(cmd, false)
	cmd.Flags().StringVar(&key, "key", "", "key that ticks are signed with, a file as init makes it")
	cmd.Flags().StringArrayVar(&replays, "replay", nil, "a file that a source replays; may be repeated")
	cmd.Flags().StringVar(&from, "from", "", "time of the first round, RFC 3339, instead of now")
	cmd.Flags().Uint64Var(&rounds, "rounds", 0, "stop after so many rounds of each pair; 0: never")
	return cmd
}

// publishers makes one for each pair.
func (s *setup) publishers(ctx context.Context, o *organisms.Organism, group log.GroupStore, replays []string, key identity.Key) (all []*oracle.Publisher, err error) {
	files := make(map[log.Digest][]byte)
	for _, name := range replays {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files[log.Sum(b)] = b
	}
	for _, listing := range s.catalog.Pairs {
		var sources []oracle.Source
		for i, c := range listing.Sources {
			source, err := s.source(ctx, group, listing.Pair, c, files)
			if err != nil {
				for _, open := range sources {
					err = errors.Join(err, open.Close())
				}
				return all, fmt.Errorf("source %d of %v: %w", i+1, listing.Pair, err)
			}
			sources = append(sources, source)
		}
		u, err := oracle.NewPublisher(ctx, o, s.parameters, listing.Pair, sources, key)
		if err != nil {
			return all, err
		}
		all = append(all, u)
	}
	return all, nil
}

// source opens what an entry of the catalog says.
func (s *setup) source(ctx context.Context, group log.GroupStore, pair oracle.Pair, c oracle.SourceConfig, files map[log.Digest][]byte) (oracle.Source, error) {
	switch c := c.(type) {
	case *oracle.CexSpot:
		return oracle.NewHTTPS(pair, c, s.parameters.Decimals)
	case *oracle.Replay:
		b, ok := files[c.File]
		if !ok {
			return nil, fmt.Errorf("%w: it replays the file with the digest %s, which was not given with --replay", conf.ErrConfig, c.File)
		}
		return oracle.NewReplayer(pair, c, s.parameters.Decimals, bytes.NewReader(b))
	case *oracle.Organism:
		return nil, fmt.Errorf("%w: it is another oracle, %s: this program cannot follow one yet; embed package oracle for that", conf.ErrConfig, c.Ref.StableID.Short())
	}
	return nil, fmt.Errorf("%w: its kind is not known", conf.ErrConfig)
}

// oracleTick is a tick as it is printed.
type oracleTick struct {
	Pair         string       `json:"pair"`
	Seq          uint64       `json:"seq"`
	Time         time.Time    `json:"time"`
	Price        string       `json:"price,omitempty"` // absent: skipped
	Confidence   string       `json:"confidence,omitempty"`
	Sources      uint8        `json:"sources"`
	Stale        bool         `json:"stale,omitempty"`
	Disagreement bool         `json:"disagreement,omitempty"`
	Pointer      *log.Pointer `json:"pointer,omitempty"`
}

func tickOf(t *oracle.PriceTick, at log.Pointer) oracleTick {
	return oracleTick{
		Pair: t.Pair.String(), Seq: t.Seq, Time: time.UnixMilli(int64(t.TimestampMs)).UTC(), Price: t.Price.Format(t.Decimals), Confidence: t.Confidence.Format(t.Decimals),
		Sources: t.SourceCount, Stale: t.Stale, Disagreement: t.Disagreement, Pointer: &at,
	}
}

func printOutcome(g *globals, out oracle.Outcome) error {
	if out.Tick != nil {
		return printTick(g, tickOf(out.Tick, out.Pointer))
	}
	return printTick(g, oracleTick{Pair: out.Round.Pair.String(), Seq: out.Round.Seq, Time: out.Round.Time(), Pointer: &out.Pointer})
}

func printTick(g *globals, t oracleTick) error {
	if g.json {
		return printLine(g.out, t)
	}
	if t.Price == "" {
		_, err := fmt.Fprintf(g.out, "%s  %-12s %8d  skipped: too few sources\n", t.Time.Format(time.RFC3339), t.Pair, t.Seq)
		return err
	}
	marks := ""
	if t.Stale {
		marks += "  stale"
	}
	if t.Disagreement {
		marks += "  disagreement"
	}
	_, err := fmt.Fprintf(g.out, "%s  %-12s %8d  %s ± %s  %d sources%s\n", t.Time.Format(time.RFC3339), t.Pair, t.Seq, t.Price, t.Confidence, t.Sources, marks)
	return err
}

// newOracleTailCmd returns the verb that reads an oracle's ticks.
func newOracleTailCmd(g *globals) *cobra.Command {
	var f oracleFlags
	var follow bool
	cmd := &cobra.Command{
		Use:   "tail PAIR",
		Short: "Read the prices of an oracle",
		Long: `Prints the ticks of one pair from the first on. Each must be signed by one of the peers
given with --signer; one that is not ends the reading. The reading also ends where another
revision of the oracle begins than the config says, and where it has retired.`,
		Example: `  mosaik-node oracle tail ETH/USDC --config oracle.toml --name oracle-γ.oracle --signer PEER --follow --node http://127.0.0.1:7070`,
		Args:    exactly("PAIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onPair(cmd, g, args[0], func(ctx context.Context, r *oracle.Reader) error {
				for t, err := range r.Ticks(ctx, log.Earliest(), follow) {
					if err == nil {
						err = printTick(g, tickOf(&t.PriceTick, t.Pointer))
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.addOracle(cmd, true)
	cmd.Flags().BoolVar(&follow, "follow", false, "wait for more at the end")
	return cmd
}

// onPair binds the oracle's pair and lets do read it.
func (f *oracleFlags) onPair(cmd *cobra.Command, g *globals, text string, do func(context.Context, *oracle.Reader) error) error {
	s, err := f.read(cmd)
	if err != nil {
		return err
	}
	pair, err := oracle.ParsePair(text)
	if err != nil {
		return usage(cmd, fmt.Errorf("PAIR: %w", err))
	}
	if len(f.signers) == 0 {
		return usage(cmd, errors.New("--signer PEER is missing: nobody's prices would be believed"))
	}
	return f.with(cmd, g, func(ctx context.Context, st store) error {
		group, err := f.home(st, s)
		if err != nil {
			return err
		}
		r, err := oracle.Bind(ctx, group, s.config.Ref(true), pair, s.admitted)
		if err != nil {
			return err
		}
		return do(ctx, r)
	})
}

// errPrices says that an oracle's prices do not follow from what its sources said.
var errPrices = errors.New("mosaik: the prices do not hold")

// newOracleAuditCmd returns the verb that computes an oracle's prices again.
func newOracleAuditCmd(g *globals) *cobra.Command {
	var f oracleFlags
	cmd := &cobra.Command{
		Use:   "audit PAIR",
		Short: "Compute an oracle's prices again from what its sources said",
		Long: `Goes through all rounds of one pair: what every source said is held against what it said
before, the tick is computed again and compared field by field, its signature is checked.
The first that does not hold is named, with its pointer, and the exit code is 13.`,
		Example: `  mosaik-node oracle audit ETH/USDC --config oracle.toml --name oracle-γ.oracle --signer PEER --dir data`,
		Args:    exactly("PAIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onPair(cmd, g, args[0], func(ctx context.Context, r *oracle.Reader) error {
				began := time.Now()
				report, err := r.Audit(ctx)
				if err != nil {
					var lie *oracle.AuditError
					if errors.As(err, &lie) || errors.Is(err, oracle.ErrSignature) || errors.Is(err, oracle.ErrSigner) || errors.Is(err, oracle.ErrRound) {
						err = fmt.Errorf("%w: %w", errPrices, err)
					}
					return err
				}
				if g.json {
					return printLine(g.out, map[string]any{"rounds": report.Rounds, "ticks": report.Ticks, "skipped": report.Skipped})
				}
				_, err = fmt.Fprintf(g.out, "%d rounds hold: %d ticks computed again, %d skipped, in %v\n", report.Rounds, report.Ticks, report.Skipped, time.Since(began).Round(time.Millisecond))
				return err
			})
		},
	}
	f.addOracle(cmd, true)
	return cmd
}

// newOracleShowCmd returns the verb that shows what an oracle is.
func newOracleShowCmd(g *globals) *cobra.Command {
	var f oracleFlags
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show an oracle's ids, and which revision is in force",
		Long: `Derives the oracle's ids from its config and compares: the revision that the group has in
force, and whether the oracle has retired and who goes on in its place.`,
		Example: `  mosaik-node oracle show --config oracle.toml --name oracle-γ.oracle --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.read(cmd)
			if err != nil {
				return err
			}
			return f.with(cmd, g, func(ctx context.Context, st store) error {
				group, err := f.home(st, s)
				if err != nil {
					return err
				}
				surface, err := organisms.Bind(ctx, group, s.config.Ref(false), s.definition)
				if err != nil {
					return err
				}
				inForce, err := surface.ContentHash(ctx)
				if err != nil {
					return err
				}
				m, retired, err := surface.Marker(ctx)
				if err != nil {
					return err
				}
				if g.json {
					out := map[string]any{"stable_id": s.config.StableID(), "config": s.config.ContentHash(), "in_force": inForce, "retired": retired}
					if retired {
						out["reason"], out["commit"], out["replacement"] = m.Reason, m.Instant.Commit, m.Replacement
					}
					return printLine(g.out, out)
				}
				fmt.Fprintf(g.out, "stable id  %s\nconfig     %s\nin force   %s\n", s.config.StableID(), s.config.ContentHash(), inForce)
				if retired {
					fmt.Fprintf(g.out, "retired    at commit %d (%s)%s\n", m.Instant.Commit, m.Reason, successor(&m))
				}
				return nil
			})
		},
	}
	f.addOracle(cmd, false)
	return cmd
}

// successor says who goes on after a retirement.
func successor(m *organisms.RetirementMarker) string {
	if m.Replacement == nil {
		return ""
	}
	return ", " + m.Replacement.StableID.String() + " goes on"
}

// newOracleReviseCmd returns the verb that publishes another revision.
func newOracleReviseCmd(g *globals) *cobra.Command {
	var f oracleFlags
	cmd := &cobra.Command{
		Use:   "revise",
		Short: "Publish another revision of an oracle",
		Long: `Makes the config the revision in force. Readers that pin the one before are told, and read
no further; others go on. The oracle is run with the new config then.`,
		Example: `  mosaik-node oracle revise --config oracle.toml --name oracle-γ.oracle --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.read(cmd)
			if err != nil {
				return err
			}
			return f.with(cmd, g, func(ctx context.Context, st store) error {
				group, err := f.home(st, s)
				if err == nil {
					_, err = organisms.Revise(ctx, group, s.config, s.definition)
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(g.out, s.config.ContentHash())
				return err
			})
		},
	}
	f.addOracle(cmd, false)
	return cmd
}

// newOracleRetireCmd returns the verb that ends an oracle.
func newOracleRetireCmd(g *globals) *cobra.Command {
	var f oracleFlags
	var reason, replacement string
	cmd := &cobra.Command{
		Use:   "retire",
		Short: "End an oracle, and say who goes on",
		Long: `Commits the marker that is the oracle's last commit: nothing is taken after it, and every
reader comes to an end there. With --replacement it names who goes on, by its stable id. This
cannot be undone.`,
		Example: `  mosaik-node oracle retire --config oracle.toml --name oracle-γ.oracle --reason rotation --replacement STABLE-ID --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.read(cmd)
			if err != nil {
				return err
			}
			var next *organisms.Ref
			if replacement != "" {
				id, err := identity.ParseID(replacement)
				if err != nil {
					return usage(cmd, fmt.Errorf("--replacement: %w", err))
				}
				next = &organisms.Ref{Role: oracle.Role, StableID: id}
			}
			return f.with(cmd, g, func(ctx context.Context, st store) error {
				group, err := f.home(st, s)
				if err != nil {
					return err
				}
				o, err := organisms.Open(ctx, group, s.config, s.definition)
				if err != nil {
					return err
				}
				m, err := o.Retire(ctx, organisms.RetirementReason(reason), next)
				if errors.Is(err, organisms.ErrRetirement) {
					return usage(cmd, err)
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(g.out, "retired at commit %d (%s)%s\n", m.Instant.Commit, m.Reason, successor(&m))
				return err
			})
		},
	}
	f.addOracle(cmd, false)
	cmd.Flags().StringVar(&reason, "reason", string(organisms.OperatorExit), "rotation, superseded, compromised, abandoned or operator-exit")
	cmd.Flags().StringVar(&replacement, "replacement", "", "stable id of who goes on")
	return cmd
}
