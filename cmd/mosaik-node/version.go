package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

// newVersionCmd returns the verb that says which program this is.
func newVersionCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of the formats it knows",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: version, CommitFormat: log.HeaderVersion, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if g.json {
				return printJSON(g.out, v)
			}
			_, err := fmt.Fprintf(g.out, "mosaik-node %s (commit format %d, %s, %s)\n", v.Version, v.CommitFormat, v.Go, v.Platform)
			return err
		},
	}
}

type versionInfo struct {
	Version      string `json:"version"`
	CommitFormat int    `json:"commit_format"`
	Go           string `json:"go"`
	Platform     string `json:"platform"`
}
