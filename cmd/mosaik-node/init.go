package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/identity"
)

// configFile and secretFile are the names of what init leaves beside the key.
const (
	configFile = "node.toml"
	secretFile = "secret"
)

// newInitCmd returns the verb that makes a node's key and configuration.
func newInitCmd(g *globals) *cobra.Command {
	var dir, network string
	var secret bool
	cmd := &cobra.Command{
		Use:   "init --dir DIR",
		Short: "Make a node's key and a configuration to fill in",
		Long: `Makes what a node of a network needs before it can serve: its key, which nobody else
may have and which is the node from then on, and a configuration with comments. It
prints the node's peer ID, which goes into the configuration of every member.

With --secret it also makes a secret. Members prove to each other that they have it;
copy it to all of them, by a way that nobody listens to.

What is there already stays as it is. Keep a copy of the key: a node whose disk is
lost comes back under it (node rebuild).`,
		Example: `  mosaik-node init --dir data --network prices
  mosaik-node init --dir data --network prices --secret`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case dir == "":
				return usage(cmd, errors.New("--dir DIR is missing"))
			case network != "":
				if err := identity.ValidateName(network); err != nil {
					return usage(cmd, fmt.Errorf("--network: %w", err))
				}
			}
			made, err := initNode(dir, network, secret)
			if err != nil {
				return err
			}
			if g.json {
				return printLine(g.out, made)
			}
			return made.print(g)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "directory of the node, made if there is none")
	f.StringVar(&network, "network", "", "name of the network, the same on all its nodes")
	f.BoolVar(&secret, "secret", false, "also make a secret for the members")
	return cmd
}

// initInfo is what init has made or found.
type initInfo struct {
	Peer   identity.PeerID `json:"peer"`
	Key    string          `json:"key"`
	Config string          `json:"config"`
	Secret string          `json:"secret,omitempty"`
	Made   []string        `json:"made"` // of these, what was not there before
}

func initNode(dir, network string, secret bool) (*initInfo, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	made := &initInfo{Key: filepath.Join(dir, keyFile), Config: filepath.Join(dir, configFile), Made: []string{}}
	key, err := identity.LoadKey(made.Key)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = identity.GenerateKey(); err == nil {
			err = key.Save(made.Key)
		}
		made.Made = append(made.Made, made.Key)
	}
	if err != nil {
		return nil, err
	}
	made.Peer = key.PeerID()
	if secret {
		made.Secret = filepath.Join(dir, secretFile)
		var b [minSecret]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		if err := writeNew(made.Secret, hex.EncodeToString(b[:])+"\n", made); err != nil {
			return nil, err
		}
	}
	return made, writeNew(made.Config, initConfig(made, dir, network), made)
}

// writeNew writes a file, unless there is one.
func writeNew(path, content string, made *initInfo) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		made.Made = append(made.Made, path)
	}
	return err
}

// initConfig is the configuration that has to be filled in.
func initConfig(made *initInfo, dir, network string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Of the node %s.
# Checked by: mosaik-node config check FILE. Used by: mosaik-node serve --config FILE.
dir = %q
key = %q

# Clients come here. There is no authentication: think before it leaves the machine.
listen = "127.0.0.1:7070"
# Health, metrics and profiles.
admin = "127.0.0.1:7071"

`, made.Peer, dir, made.Key)
	name := network
	if name == "" {
		name = "NAME"
	}
	comment := ""
	if network == "" {
		comment = "# "
	}
	fmt.Fprintf(&b, "# The network, and where the other nodes of it reach this one.\n%snetwork = %q\n%speer-listen = \"0.0.0.0:7072\"\n", comment, name, comment)
	if made.Secret != "" {
		fmt.Fprintf(&b, "# The same content on all members.\n%ssecret-file = %q\n", comment, made.Secret)
	}
	fmt.Fprintf(&b, `
# Those that found the groups together, with their addresses: the same ones in the
# same order on each, since the groups' names are derived from them. Three or five.
%smembers = [
%s  "%s@HOST:7072",
%s]
`, comment, comment, made.Peer, comment)
	return b.String()
}

func (i *initInfo) print(g *globals) error {
	for _, path := range i.Made {
		fmt.Fprintf(g.err, "made %s\n", path)
	}
	if len(i.Made) == 0 {
		fmt.Fprintln(g.err, "everything was there already")
	}
	if _, err := fmt.Fprintln(g.out, i.Peer); err != nil {
		return err
	}
	fmt.Fprintf(g.err, "next: fill in the members in %s, then mosaik-node serve --config %s\n", i.Config, i.Config)
	return nil
}
