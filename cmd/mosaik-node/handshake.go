package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/coalition"
	"github.com/mosaik-engine/mosaik/identity"
)

// newHandshakeRenderCmd returns the verb that renders a coalition's page.
func newHandshakeRenderCmd(g *globals) *cobra.Command {
	var pages []string
	h := new(coalition.Handshake)
	cmd := &cobra.Command{
		Use:   "render FILE",
		Short: "Render the page that a coalition's operator publishes",
		Long: `Prints, in Markdown, what integrators need: the config and its id, every member and
module, of each service whether it is shipped, and what cannot be computed: the pages
of the members' own operators, images, peers to begin with, and where changes are
announced. "handshake verify" tells what is still missing.`,
		Example: `  mosaik-node coalition handshake render coalition.toml --peer PEER@a.example:7072 --changes https://a.example/changes > handshake.md`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if h.Config, err = readCoalition(g, args[0]); err != nil {
				return err
			}
			h.Pages = make(map[identity.ID]string)
			for _, text := range pages {
				digits, page, ok := strings.Cut(text, "=")
				id, err := identity.ParseID(digits)
				if !ok || err != nil || page == "" {
					return usage(cmd, fmt.Errorf("--page %s: STABLE-ID=ADDRESS is wanted", text))
				}
				h.Pages[id] = page
			}
			for _, p := range h.Peers {
				if list, err := parseMembers([]string{p}); err != nil || list[0].address == "" {
					return usage(cmd, fmt.Errorf("--peer %s: PEER@HOST:PORT is wanted", p))
				}
			}
			page, err := h.Render()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(g.out, "%s\n", page)
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&pages, "page", nil, "where a member's or module's operator has published it, STABLE-ID=ADDRESS; may be repeated")
	f.StringVar(&h.Measurements, "measurements", "", "which images the operator's own attested parts run, or none")
	f.StringArrayVar(&h.Peers, "peer", nil, "a peer to begin with, PEER@HOST:PORT; may be repeated")
	f.StringVar(&h.Channel, "changes", "", "where changes are announced")
	return cmd
}

// checkInfo is a check as JSON.
type checkInfo struct {
	Item   string `json:"item"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

// newHandshakeVerifyCmd returns the verb that goes through an integrator's checklist.
func newHandshakeVerifyCmd(g *globals) *cobra.Command {
	var own string
	cmd := &cobra.Command{
		Use:   "verify PAGE",
		Short: "Go through what an integrator owes itself to check",
		Long: `Reads a page that a coalition's operator has published, computes the ids anew, and goes
through the integrator's checklist: the config, lattices, organisms, modules, images,
peers, and the channel of changes. What the page is silent about is told as missing: for
a service, too, since silence is ambiguous. Whether a member's stable id is what its own
operator has published, only you can compare.

It ends with exit code 13 if something is wrong, and 3 if something is missing. PAGE is -
for standard input.`,
		Example: `  mosaik-node coalition handshake verify handshake.md --config coalition.toml`,
		Args:    exactly("PAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var config *coalition.Config
			var err error
			if own != "" {
				if config, err = readCoalition(g, own); err != nil {
					return err
				}
			}
			page, err := readBounded(g, args[0], coalition.MaxFile)
			if err != nil {
				return err
			}
			checks, err := coalition.VerifyHandshake(page, config)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			counts := make(map[coalition.CheckResult]int)
			t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
			for _, c := range checks {
				counts[c.Result]++
				if !g.json {
					fmt.Fprintf(t, "%s\t%s\t%s\n", c.Result, c.Item, c.Detail)
				} else if err := printLine(g.out, checkInfo{c.Item, c.Result.String(), c.Detail}); err != nil {
					return err
				}
			}
			if err := t.Flush(); err != nil {
				return err
			}
			switch {
			case counts[coalition.CheckWrong] > 0:
				return fmt.Errorf("%w: %s", errHandshake, plural(counts[coalition.CheckWrong], "item")+" wrong")
			case counts[coalition.CheckMissing] > 0:
				return &partialError{errors.New(plural(counts[coalition.CheckMissing], "item") + " missing")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&own, "config", "", "file with the config that you have compiled in")
	return cmd
}

// errHandshake says that a page contradicts itself or the integrator's config.
var errHandshake = errors.New("the page is not to be trusted")
