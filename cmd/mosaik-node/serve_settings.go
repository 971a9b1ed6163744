package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/conf"
	"github.com/mosaik-engine/mosaik/engine"
)

// settings are those of serve. Each is a flag, a variable and a key of the
// configuration file under one name.
type settings struct {
	dir, listen, admin  string
	spread              int
	named               []string
	logFormat, logLevel string
	proposeTimeout      time.Duration
	drainTimeout        time.Duration
	inFlight            int
	memTableBytes       conf.Bytes
	cacheBytes          conf.Bytes
	raftLogBytes        conf.Bytes
	segmentBytes        conf.Bytes
	retainSegments      int
	retainBytes         conf.Bytes
	retainAge           time.Duration
	maxBodyBytes        conf.Bytes
	// Of a network (serve_peer.go).
	network, key, peerListen, secretFile string
	members                              []string
	discover                             bool
	bootstrap, advertise                 []string
	bootstrapDNS                         string
	guests                               string
	guestMaxLag                          uint64
	// Of the tickets that its members ask each other for (serve_tickets.go).
	ticketKeys, ticketIssuers, ticketAudiences, ticketClaims []string
	ticketLifetime                                           time.Duration
	ticketFile                                               string
	// Of the quotes that they ask each other for (serve_tdx.go).
	tdxPolicy, tdxCollateral, tdxPCCS, simulatedMRTD string
	simulateTDX                                      bool

	set    *pflag.FlagSet
	config string // path of the file
}

// addTo adds the settings to a verb.
func (s *settings) addTo(cmd *cobra.Command) {
	s.set = pflag.NewFlagSet("settings", pflag.ContinueOnError)
	s.cacheBytes, s.raftLogBytes, s.maxBodyBytes = 64<<20, 128<<20, 1<<30
	f := s.set
	f.StringVar(&s.dir, "dir", "", "directory of the store, made if there is none")
	f.StringVar(&s.listen, "listen", "127.0.0.1:7070", "address of the HTTP API; it has no authentication, so think before it leaves the machine")
	f.StringVar(&s.admin, "admin", "127.0.0.1:7071", "address of health, metrics and profiles; empty for none")
	f.IntVar(&s.spread, "spread", 0, "number of groups that streams are spread over, of a new store (default 1)")
	f.StringSliceVar(&s.named, "named", nil, "further groups, for streams that are put there by --group")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.DurationVar(&s.proposeTimeout, "propose-timeout", 10*time.Second, "how long an append may take before it fails with no quorum")
	f.DurationVar(&s.drainTimeout, "drain-timeout", 10*time.Second, "how long requests may take to come to their end at shutdown")
	f.IntVar(&s.inFlight, "in-flight", 0, "batches a group has under way at once, 1 to 8 (default: by the number of members)")
	f.Var(&s.memTableBytes, "memtable-bytes", "size of the store's write buffer, of which there may be four (default 64MiB, less on a small disk)")
	f.Var(&s.cacheBytes, "cache-bytes", "size of the store's block cache")
	f.Var(&s.raftLogBytes, "raft-log-bytes", "how much Raft log a group keeps for members that lag")
	f.DurationVar(&s.retainAge, "retain-age", 0, "keep segments in the store while they are younger; see retain-segments")
	f.Var(&s.retainBytes, "retain-bytes", "keep so much sealed history in the store; see retain-segments")
	f.Var(&s.segmentBytes, "segment-bytes", "size at which sealed segments end, of a new store; the same on all members (default 16MiB)")
	f.IntVar(&s.retainSegments, "retain-segments", 0, "keep so many sealed segments in the store; what no limit keeps is archived (default: all is kept)")
	f.StringVar(&s.network, "network", "", "name of the network the node is one of (default: it is alone)")
	f.StringVar(&s.key, "key", "", "file with the node's key, as init makes it (default: "+keyFile+" in the directory)")
	f.StringVar(&s.peerListen, "peer-listen", "127.0.0.1:7072", "address for the other nodes of the network, HOST:PORT")
	f.StringSliceVar(&s.members, "members", nil, "those that found the groups, PEER@HOST:PORT each, in the same order on all (default: as the store has them)")
	f.StringVar(&s.secretFile, "secret-file", "", "file with what only the members know, the same on all")
	f.BoolVar(&s.discover, "discover", false, "find the other peers of the network, and be found by them")
	f.StringSliceVar(&s.bootstrap, "bootstrap", nil, "peers to begin with besides the members, PEER@HOST:PORT each; see discover")
	f.StringVar(&s.bootstrapDNS, "bootstrap-dns", "", "domain whose SRV records _mosaik._tcp name peers to begin with; see discover")
	f.StringSliceVar(&s.advertise, "advertise", nil, "where others can reach the node, HOST:PORT each (default: the address of peer-listen, if it is a single one)")
	f.StringVar(&s.guests, "guests", guestsNone, "what peers that are no members may do with the groups: none, read or write; they need the tickets that members need")
	f.Uint64Var(&s.guestMaxLag, "guest-max-lag", 0, "disconnect a guest that falls behind by more records, once it has come to the end (default: it may take its time)")
	f.StringSliceVar(&s.ticketKeys, "ticket-key", nil, "members need a ticket signed by one of these, ALG:HEX as for ticket verify; this and the other settings of tickets the same on all (default: no ticket)")
	f.StringSliceVar(&s.ticketIssuers, "ticket-issuer", nil, "issuers of tickets that are allowed (default: any)")
	f.StringSliceVar(&s.ticketAudiences, "ticket-audience", nil, "audiences of tickets that are allowed (default: any)")
	f.StringSliceVar(&s.ticketClaims, "ticket-claim", nil, "claims a ticket must have, NAME=VALUE")
	f.DurationVar(&s.ticketLifetime, "ticket-max-lifetime", 0, "how long a ticket may be valid yet, in whole seconds (default: as long as it likes)")
	f.StringVar(&s.ticketFile, "ticket-file", "", "file with the node's own tickets, one a line; it is read again when it changes")
	f.StringVar(&s.tdxPolicy, "tdx-policy", "", "file with a policy: members need a quote of Intel TDX that it accepts, the same policy on all (default: no quote)")
	f.StringVar(&s.tdxCollateral, "tdx-collateral", "", "directory that collateral is kept in over restarts (default: it is fetched again)")
	f.StringVar(&s.tdxPCCS, "tdx-pccs", "", "service that collateral is fetched from in the place of Intel's")
	f.BoolVar(&s.simulateTDX, simulatedFlag, false, simulatedHelp)
	f.StringVar(&s.simulatedMRTD, "insecure-simulated-mrtd", "", "image of the simulated trust domain, 96 hex digits")
	f.Var(&s.maxBodyBytes, "max-body-bytes", "largest body of one append request")
	cmd.Flags().AddFlagSet(f)
	cmd.Flags().StringVar(&s.config, "config", "", "TOML file with settings under the names of these flags (MOSAIK_CONFIG)")
}

// load completes the settings from the environment and the file, and checks
// them. The list has them all, also with an error of the check.
func (s *settings) load() ([]conf.Setting, error) {
	if s.config == "" {
		s.config = os.Getenv("MOSAIK_CONFIG")
	}
	list, err := conf.Load(s.set, s.config, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	return list, s.check()
}

// check says what is wrong with the settings in effect.
func (s *settings) check() error {
	bad := func(name string, err error) error { return fmt.Errorf("%w: %s: %w", conf.ErrConfig, name, err) }
	if s.dir == "" {
		return bad("dir", errors.New("it is missing; a node needs a directory"))
	}
	for name, address := range map[string]string{"listen": s.listen, "admin": s.admin} {
		if name == "admin" && address == "" {
			continue
		}
		_, port, err := net.SplitHostPort(address)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return bad(name, fmt.Errorf("%q is not HOST:PORT", address))
		}
	}
	if err := s.checkPeer(bad); err != nil {
		return err
	}
	if s.logFormat != "text" && s.logFormat != "json" {
		return bad("log-format", fmt.Errorf("%q is neither text nor json", s.logFormat))
	}
	if _, err := s.level(); err != nil {
		return bad("log-level", fmt.Errorf("%q is none of debug, info, warn and error", s.logLevel))
	}
	for name, d := range map[string]time.Duration{"propose-timeout": s.proposeTimeout, "drain-timeout": s.drainTimeout} {
		if d <= 0 {
			return bad(name, fmt.Errorf("%v is no time to wait", d))
		}
	}
	if s.retainSegments < 0 || s.retainAge < 0 {
		return bad("retain-segments and retain-age", errors.New("they must not be negative"))
	}
	return nil
}

func (s *settings) level() (slog.Level, error) {
	var level slog.Level
	return level, level.UnmarshalText([]byte(s.logLevel))
}

// options returns what the engine is opened with.
func (s *settings) options(logger *slog.Logger) *engine.Options {
	return &engine.Options{
		Spread: s.spread, Named: s.named, Machines: organismMachines(), Logger: logger,
		ProposeTimeout: s.proposeTimeout, InFlight: s.inFlight,
		SegmentBytes: int64(s.segmentBytes), MemTableBytes: int64(s.memTableBytes), CacheBytes: int64(s.cacheBytes), RaftLogBytes: int64(s.raftLogBytes),
		Retention: engine.Retention{Segments: s.retainSegments, Bytes: int64(s.retainBytes), Age: s.retainAge},
	}
}
