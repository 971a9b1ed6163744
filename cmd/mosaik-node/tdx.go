package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

// simulatedFlag is the one way to a simulated TDX on the command line. What comes of it
// says so in every output.
const (
	simulatedFlag = "insecure-simulated-tdx"
	simulatedHelp = "use a TDX and an Intel made of software, which prove nothing: for development"
)

// simulation returns the simulated Intel of the command line: the same in every
// process, so that one can verify what another has quoted. Everybody can forge it.
func simulation() (*simulated.Authority, error) {
	return simulated.New([32]byte{}, simulated.DefaultPlatform(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
}

// rootOf returns the root of trust that the flag chooses.
func rootOf(simulate bool) (tdx.Root, error) {
	if !simulate {
		return tdx.IntelRoot(), nil
	}
	a, err := simulation()
	if err != nil {
		return tdx.Root{}, err
	}
	return a.Root(), nil
}

// quoteInfo is what a quote says, as JSON.
type quoteInfo struct {
	Version        uint16            `json:"version"`
	Digest         identity.ID       `json:"digest"`
	Measurements   map[string]string `json:"measurements"`
	MRSEAM         string            `json:"mrseam"`
	TDAttributes   string            `json:"td_attributes"`
	XFAM           string            `json:"xfam"`
	Debug          bool              `json:"debug"`
	TEETCBSVN      string            `json:"tee_tcb_svn"`
	ReportData     string            `json:"report_data"`
	TrailingUnused int               `json:"trailing_bytes"`
}

// register is one of the measurements by its name.
type register struct {
	name  string
	value tdx.Measurement
}

// registers are the measurements in the order they are printed.
func registers(m *tdx.Measurements) []register {
	return []register{
		{"mrtd", m.MRTD}, {"rtmr0", m.RTMR[0]}, {"rtmr1", m.RTMR[1]}, {"rtmr2", m.RTMR[2]}, {"rtmr3", m.RTMR[3]},
		{"mr_config_id", m.MRConfigID}, {"mr_owner", m.MROwner}, {"mr_owner_config", m.MROwnerConfig},
	}
}

func quoteInfoOf(q *tdx.Quote) quoteInfo {
	info := quoteInfo{
		Version: q.Version, Digest: q.Digest(), Measurements: make(map[string]string), MRSEAM: hex.EncodeToString(q.MRSEAM[:]),
		TDAttributes: fmt.Sprintf("%016x", q.TDAttributes), XFAM: fmt.Sprintf("%016x", q.XFAM), Debug: q.Debug(),
		TEETCBSVN: hex.EncodeToString(q.TEETCBSVN[:]), ReportData: hex.EncodeToString(q.ReportData[:]), TrailingUnused: q.Trailing,
	}
	for _, r := range registers(&q.Measurements) {
		info.Measurements[r.name] = hex.EncodeToString(r.value[:])
	}
	return info
}

// newTDXInspectCmd returns the verb that shows what a quote says.
func newTDXInspectCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect QUOTE",
		Short: "Show what a quote says, without believing it",
		Long: `Decodes a quote of Intel TDX, version 4 or 5, and prints what it says. Nothing is
checked: anybody can write anything into a quote (tdx verify). QUOTE is a file with the
quote's bytes, - for standard input.`,
		Example: `  mosaik-node tdx inspect quote.bin`,
		Args:    exactly("QUOTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readBounded(g, args[0], tdx.MaxQuoteSize)
			if err != nil {
				return err
			}
			q, err := tdx.ParseQuote(raw)
			if err != nil {
				return err
			}
			info := quoteInfoOf(q)
			if g.json {
				return printLine(g.out, info)
			}
			t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
			fmt.Fprintf(t, "version\t%d\ndigest\t%s\n", info.Version, info.Digest)
			for _, r := range registers(&q.Measurements) {
				fmt.Fprintf(t, "%s\t%x\n", r.name, r.value[:])
			}
			fmt.Fprintf(t, "mrseam\t%s\ntd_attributes\t%s\nxfam\t%s\ndebug\t%t\ntee_tcb_svn\t%s\nreport_data\t%s\n",
				info.MRSEAM, info.TDAttributes, info.XFAM, info.Debug, info.TEETCBSVN, info.ReportData)
			return t.Flush()
		},
	}
}

// policyFile is a policy as a file has it.
type policyFile struct {
	Baseline      tdx.Criteria      `json:"baseline"`
	Variants      []tdx.Criteria    `json:"variants"`
	MRSEAM        []tdx.Measurement `json:"mrseam"`
	WorstTCB      string            `json:"worst_tcb"`
	MinEvaluation uint32            `json:"min_evaluation"`
	BannedFMSPC   []string          `json:"banned_fmspc"`
	BannedPCK     []identity.ID     `json:"banned_pck"`
	NotBefore     time.Time         `json:"not_before"`
	MaxAge        string            `json:"max_age"`
	MaxLifetime   string            `json:"max_lifetime"`
}

// maxPolicy bounds a file with a policy, in bytes.
const maxPolicy = 1 << 20

// readPolicy reads a policy for a root; an empty path is the policy that only asks for what
// is genuine and up to date.
func readPolicy(g *globals, path string, root tdx.Root) (tdx.Policy, error) {
	if path == "" {
		return tdx.Policy{Root: root}, nil
	}
	b, err := readBounded(g, path, maxPolicy)
	if err != nil {
		return tdx.Policy{}, err
	}
	p, err := parsePolicy(b, root)
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// parsePolicy decodes a policy for a root.
func parsePolicy(text []byte, root tdx.Root) (tdx.Policy, error) {
	p := tdx.Policy{Root: root}
	var f policyFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&f)
	if err != nil {
		return p, fmt.Errorf("%w: %w", tdx.ErrPolicy, err)
	}
	p.Baseline, p.Variants, p.MRSEAM, p.MinEvaluation = f.Baseline, f.Variants, f.MRSEAM, f.MinEvaluation
	p.BannedFMSPC, p.BannedPCK, p.NotBefore = f.BannedFMSPC, f.BannedPCK, f.NotBefore
	if f.WorstTCB != "" {
		if p.WorstTCB, err = tdx.ParseStatus(f.WorstTCB); err != nil {
			return p, fmt.Errorf("worst_tcb: %w", err)
		}
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"max_age", f.MaxAge, &p.MaxAge}, {"max_lifetime", f.MaxLifetime, &p.MaxLifetime}} {
		if d.text == "" {
			continue
		}
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			return p, fmt.Errorf("%w: %s: %q is no duration such as 24h", tdx.ErrPolicy, d.name, d.text)
		}
	}
	return p, p.Validate()
}

// tdxFetch gets one item of collateral (tdx.CacheOptions).
type tdxFetch = func(ctx context.Context, url string) (tdx.Item, error)

// policyInfo is a policy as JSON.
type policyInfo struct {
	ID        identity.ID `json:"id"`
	Signature identity.ID `json:"signature"`
	Root      string      `json:"root"`
	Simulated bool        `json:"simulated"`
}

// newTDXPolicyCmd returns the verb that checks a policy.
func newTDXPolicyCmd(g *globals) *cobra.Command {
	var simulate bool
	cmd := &cobra.Command{
		Use:   "policy FILE",
		Short: "Check a policy and print its ids",
		Long: `Reads a policy, a JSON file, and prints the id that verdicts name it by and the signature
that groups fold into their ids. The root of trust is part of both: a policy for a
simulation has other ids than the same one for Intel's root. The fields, each optional:

  baseline, variants  registers a quote must have: mrtd, rtmr (a list of four), mr_config_id,
                      mr_owner, mr_owner_config, 96 hex digits each. The baseline must
                      fit, and one of the variants, if there are any: old and new images
                      side by side while a rotation lasts
  mrseam              TDX modules that are allowed
  worst_tcb           worst status of the platform, UpToDate if it is left out
  min_evaluation      lowest tcbEvaluationDataNumber of the collateral
  banned_fmspc        kinds of platform, 12 hex digits
  banned_pck          platforms, as tdx verify prints them
  not_before          earliest time of a quote, RFC 3339
  max_age             how old a quote may be
  max_lifetime        how long a ticket may last`,
		Example: `  mosaik-node tdx policy policy.json`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := rootOf(simulate)
			if err != nil {
				return err
			}
			p, err := readPolicy(g, args[0], root)
			if err != nil {
				return err
			}
			info := policyInfo{p.ID(), p.Signature(), root.String(), root.Simulated()}
			if g.json {
				return printLine(g.out, info)
			}
			_, err = fmt.Fprintf(g.out, "policy     %s\nsignature  %s\nroot       %s\n", info.ID, info.Signature, info.Root)
			return err
		},
	}
	cmd.Flags().BoolVar(&simulate, simulatedFlag, false, simulatedHelp)
	return cmd
}

// verifiedInfo is the answer of tdx verify as JSON.
type verifiedInfo struct {
	Genuine    bool            `json:"genuine"`
	Acceptable bool            `json:"acceptable"`
	Simulated  bool            `json:"simulated"`
	Reasons    []tdxReasonInfo `json:"reasons"`
	Quote      quoteInfo       `json:"quote"`
	FMSPC      string          `json:"fmspc"`
	PCK        identity.ID     `json:"pck"`
	TCB        tcbInfo         `json:"tcb"`
	NotAfter   time.Time       `json:"not_after"`
}

type tcbInfo struct {
	Platform   string   `json:"platform"`
	Module     string   `json:"module"`
	QE         string   `json:"qe"`
	Advisories []string `json:"advisories"`
	Evaluation uint32   `json:"evaluation"`
}

type tdxReasonInfo struct {
	Field string `json:"field"`
	Got   string `json:"got"`
	Want  string `json:"want"`
}

// newTDXVerifyCmd returns the verb that verifies a quote.
func newTDXVerifyCmd(g *globals) *cobra.Command {
	var collateral, policy, at string
	var simulate bool
	cmd := &cobra.Command{
		Use:   "verify QUOTE --collateral FILE [--policy FILE]",
		Short: "Say whether a quote is genuine, and acceptable by a policy",
		Long: `Verifies a quote as a node would: its signatures up to Intel's root, revocation, and how
well patched platform, module and quoting enclave are, by the collateral in a file (tdx
collateral fetch). Then it holds the quote against a policy (tdx policy).

It ends with exit code 13 and the reasons if the quote is not genuine or not acceptable.
With --` + simulatedFlag + ` it is verified under a root that everybody can forge, and
the collateral may be left out.`,
		Example: `  mosaik-node tdx verify quote.bin --collateral collateral.json --policy policy.json`,
		Args:    exactly("QUOTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			if at != "" {
				var err error
				if now, err = time.Parse(time.RFC3339, at); err != nil {
					return usage(cmd, fmt.Errorf("--at: %w", err))
				}
			}
			root, err := rootOf(simulate)
			if err != nil {
				return err
			}
			c, err := collateralOf(g, collateral, simulate, now)
			if err != nil {
				return err
			}
			if c == nil {
				return usage(cmd, errors.New("--collateral FILE is needed; it is made by: mosaik-node tdx collateral fetch"))
			}
			p, err := readPolicy(g, policy, root)
			if err != nil {
				return err
			}
			raw, err := readBounded(g, args[0], tdx.MaxQuoteSize)
			if err != nil {
				return err
			}
			e, err := tdx.Verify(raw, root, c, tdx.At(now))
			if err != nil {
				return err
			}
			claims := e.Claims()
			reasons := p.Check(&claims)
			info := verifiedInfo{
				Genuine: true, Acceptable: len(reasons) == 0, Simulated: e.Simulated, Reasons: []tdxReasonInfo{}, Quote: quoteInfoOf(e.Quote),
				FMSPC: e.FMSPC, PCK: e.PCK, NotAfter: e.NotAfter.UTC(),
				TCB: tcbInfo{e.TCB.Platform.String(), e.TCB.Module.String(), e.TCB.QE.String(), append([]string{}, e.TCB.Advisories...), e.TCB.EvaluationNumber},
			}
			for _, r := range reasons {
				info.Reasons = append(info.Reasons, tdxReasonInfo{r.Field, r.Got, r.Want})
			}
			if err := printVerified(g, info); err != nil {
				return err
			}
			if len(reasons) > 0 {
				return &tdx.Rejection{Reasons: reasons}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&collateral, "collateral", "", "file with the collateral of the quote's kind of platform")
	f.StringVar(&policy, "policy", "", "file with a policy (default: whatever is genuine and up to date)")
	f.StringVar(&at, "at", "", "the time to judge it at, RFC 3339 (default: now)")
	f.BoolVar(&simulate, simulatedFlag, false, simulatedHelp)
	return cmd
}

func printVerified(g *globals, info verifiedInfo) error {
	if g.json {
		return printLine(g.out, info)
	}
	t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	trust := "signed by Intel's root"
	if info.Simulated {
		trust = "SIMULATED: signed by a root that everybody can forge, which proves nothing"
	}
	fmt.Fprintf(t, "genuine\t%s\n", trust)
	fmt.Fprintf(t, "mrtd\t%s\nplatform\t%s of kind %s\n", info.Quote.Measurements["mrtd"], info.PCK, info.FMSPC)
	fmt.Fprintf(t, "patched\tplatform %s, module %s, quoting enclave %s, evaluation %d\n", info.TCB.Platform, info.TCB.Module, info.TCB.QE, info.TCB.Evaluation)
	if len(info.TCB.Advisories) > 0 {
		fmt.Fprintf(t, "advisories\t%s\n", strings.Join(info.TCB.Advisories, ", "))
	}
	fmt.Fprintf(t, "good until\t%s\n", info.NotAfter.Format(time.RFC3339))
	if info.Acceptable {
		fmt.Fprintf(t, "acceptable\tyes\n")
	}
	for _, r := range info.Reasons {
		fmt.Fprintf(t, "not acceptable\t%s is %s, wanted %s\n", r.Field, r.Got, r.Want)
	}
	return t.Flush()
}

// collateralOf reads collateral. Without a path it is the simulation's own, or nil.
func collateralOf(g *globals, path string, simulate bool, now time.Time) (*tdx.Collateral, error) {
	if path != "" {
		b, err := readBounded(g, path, tdx.MaxBundleSize)
		if err != nil {
			return nil, err
		}
		c, err := tdx.DecodeCollateral(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return c, nil
	}
	if !simulate {
		return nil, nil
	}
	a, err := simulation()
	if err != nil {
		return nil, err
	}
	return a.Collateral(simulated.Statement{Issued: now.Add(-time.Hour)})
}

// newTDXQuoteCmd returns the verb that makes a quote.
func newTDXQuoteCmd(g *globals) *cobra.Command {
	var data, mrtd string
	var simulate bool
	cmd := &cobra.Command{
		Use:   "quote FILE",
		Short: "Make a quote of the machine this runs on",
		Long: `Has the TDX module and the quoting enclave make a quote, with 64 bytes of report data that
are bound into it, and writes it to a file. Outside of a trust domain it fails and says
what is missing; with --` + simulatedFlag + ` the quote comes from software, and
--mrtd says of which image.`,
		Example: `  mosaik-node tdx quote quote.bin --report-data 00112233`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var report [64]byte
			if data == "" {
				if _, err := rand.Read(report[:]); err != nil {
					return err
				}
			} else if b, err := hex.DecodeString(data); err != nil || len(b) > len(report) {
				return usage(cmd, errors.New("--report-data: at most 128 hex digits are wanted"))
			} else {
				copy(report[:], b)
			}
			var quoter tdx.Quoter
			if simulate {
				var td simulated.TD
				if mrtd != "" {
					var err error
					if td.MRTD, err = tdx.ParseMeasurement(mrtd); err != nil {
						return usage(cmd, fmt.Errorf("--mrtd: %w", err))
					}
				}
				a, err := simulation()
				if err != nil {
					return err
				}
				quoter = a.Quoter(td)
			} else {
				if mrtd != "" {
					return usage(cmd, errors.New("--mrtd: it can be chosen only with --"+simulatedFlag))
				}
				guest, err := tdx.OpenGuest()
				if err != nil {
					return err
				}
				quoter = guest
			}
			raw, err := quoter.Quote(report)
			if err != nil {
				return err
			}
			if simulate {
				fmt.Fprintln(g.err, "this quote is simulated and proves nothing")
			}
			return os.WriteFile(args[0], raw, 0o666)
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "report-data", "", "what the quote binds, up to 64 bytes in hex (default: random)")
	f.StringVar(&mrtd, "mrtd", "", "image of the simulated trust domain, 96 hex digits")
	f.BoolVar(&simulate, simulatedFlag, false, simulatedHelp)
	return cmd
}

// newTDXCollateralFetchCmd returns the verb that fetches collateral.
func newTDXCollateralFetchCmd(g *globals) *cobra.Command {
	var base string
	cmd := &cobra.Command{
		Use:   "fetch FMSPC FILE",
		Short: "Fetch what Intel says about a kind of platform",
		Long: `Fetches the four signed items that quotes of a kind of platform are verified with, patch
levels, quoting enclave and two revocation lists, checks that Intel has signed them, and
writes them to one file. FMSPC is the kind, 12 hex digits. --pccs names a service of
your own in the place of Intel's. In a closed network, one machine with a way out fetches
for all.`,
		Example: `  mosaik-node tdx collateral fetch 50806f000000 collateral.json
  mosaik-node tdx collateral fetch 50806f000000 collateral.json --pccs https://pccs.example`,
		Args: exactly("FMSPC", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			fmspc := strings.ToLower(args[0])
			if len(fmspc) != 12 || strings.Trim(fmspc, "0123456789abcdef") != "" {
				return usage(cmd, fmt.Errorf("FMSPC: %q is not 12 hex digits", args[0]))
			}
			fetch, err := tdx.HTTPFetch(&http.Client{Timeout: 30 * time.Second}, base)
			if err != nil {
				return usage(cmd, fmt.Errorf("--pccs: %w", err))
			}
			cache, err := tdx.OpenCache(tdx.CacheOptions{Root: tdx.IntelRoot(), Fetch: fetch})
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			c, err := cache.Collateral(ctx, fmspc)
			if err = errors.Join(err, cache.Close()); err != nil {
				return err
			}
			b, err := c.Encode()
			if err != nil {
				return err
			}
			return os.WriteFile(args[1], b, 0o666)
		},
	}
	cmd.Flags().StringVar(&base, "pccs", "", "address of a caching service, such as https://pccs.example (default: Intel's)")
	return cmd
}

// collateralInfo is collateral as JSON.
type collateralInfo struct {
	FMSPC        string      `json:"fmspc"`
	Digest       identity.ID `json:"digest"`
	Authentic    bool        `json:"authentic"`
	Problem      string      `json:"problem,omitempty"`
	Simulated    bool        `json:"simulated"`
	Evaluation   uint32      `json:"evaluation"`
	PCKCRLNumber uint64      `json:"pck_crl_number"`
	RootCRL      uint64      `json:"root_crl_number"`
	Issued       time.Time   `json:"issued"`
	NextUpdate   time.Time   `json:"next_update"`
}

// newTDXCollateralShowCmd returns the verb that shows collateral.
func newTDXCollateralShowCmd(g *globals) *cobra.Command {
	var simulate bool
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show what collateral is for, and whether it is authentic and current",
		Long: `Reads a file of collateral and prints the kind of platform, the numbers that only go up,
and until when it is good. It ends with exit code 13 if it is not signed by Intel, or has
expired.`,
		Example: `  mosaik-node tdx collateral show collateral.json`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := rootOf(simulate)
			if err != nil {
				return err
			}
			c, err := collateralOf(g, args[0], simulate, time.Now())
			if err != nil {
				return err
			}
			bad := c.Authentic(root, time.Now())
			s := c.Summary()
			info := collateralInfo{
				FMSPC: c.FMSPC(), Digest: s.Digest(), Authentic: bad == nil, Simulated: simulate, Evaluation: s.EvaluationNumber,
				PCKCRLNumber: s.PCKCRLNumber, RootCRL: s.RootCRLNumber, Issued: s.Issued.UTC(), NextUpdate: s.NextUpdate.UTC(),
			}
			if bad != nil {
				info.Problem = plain(bad)
			}
			if g.json {
				err = printLine(g.out, info)
			} else {
				_, err = fmt.Fprintf(g.out, "platform     %s\ndigest       %s\nevaluation   %d\nPCK CRL      %d\nroot CRL     %d\nissued       %s\ngood until   %s\n", info.FMSPC, info.Digest,
					info.Evaluation, info.PCKCRLNumber, info.RootCRL, info.Issued.Format(time.RFC3339), info.NextUpdate.Format(time.RFC3339))
			}
			return errors.Join(err, bad)
		},
	}
	cmd.Flags().BoolVar(&simulate, simulatedFlag, false, simulatedHelp)
	return cmd
}
