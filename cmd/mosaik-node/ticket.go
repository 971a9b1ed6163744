package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/identity"
)

// newTicketIssueCmd returns the verb that issues a ticket.
func newTicketIssueCmd(g *globals) *cobra.Command {
	var key, subject, issuer, audience, id string
	var expires time.Duration
	var claims []string
	cmd := &cobra.Command{
		Use:   "issue --key FILE --subject PEER",
		Short: "Issue a ticket for a peer: a JSON Web Token",
		Long: `Signs a JSON Web Token (EdDSA) with a node's key, for another peer, and prints it. Whoever
trusts the key's peer lets the holder in until it expires. Further claims are name=value;
a value that is JSON is taken as JSON, any other as text.

A ticket cannot be called back: keep its life short, and issue it again in time.`,
		Example: `  mosaik-node ticket issue --key issuer/node.key --subject 2369f85da1bd25876f5e731e3d9eecbc8bf6b9a93a534b77a1a53724e37e8690 --issuer desk --expires 12h
  mosaik-node ticket issue --key issuer/node.key --subject PEER --claim role=writer`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if key == "" || subject == "" {
				return usage(cmd, errors.New("--key FILE and --subject PEER are needed"))
			}
			peer, err := identity.ParsePeerID(subject)
			if err != nil {
				return usage(cmd, fmt.Errorf("--subject: %w", err))
			}
			if expires <= 0 {
				return usage(cmd, fmt.Errorf("--expires %v: a ticket has to expire, later than now", expires))
			}
			private, err := claimsOf(claims)
			if err != nil {
				return usage(cmd, err)
			}
			k, err := identity.LoadKey(key)
			if err != nil {
				return err
			}
			signer, err := identity.NewJWTKeySigner(k)
			if err != nil {
				return err
			}
			now := time.Now()
			ticket, err := signer.Issue(identity.JWTClaims{
				Issuer: issuer, Subject: peer.String(), Audience: audience, TokenID: id, IssuedAt: now, Expires: now.Add(expires), Private: private,
			})
			if err != nil {
				return usage(cmd, err)
			}
			if g.json {
				return printLine(g.out, issuedInfo{string(ticket.Data), ticket.ID(), k.PeerID(), now.Add(expires).UTC().Truncate(time.Second)})
			}
			_, err = fmt.Fprintln(g.out, string(ticket.Data))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "file with the issuer's key, as init makes it")
	f.StringVar(&subject, "subject", "", "the peer it is for")
	f.StringVar(&issuer, "issuer", "", "what the issuer calls itself")
	f.StringVar(&audience, "audience", "", "what the ticket is for")
	f.StringVar(&id, "id", "", "a name of the ticket itself")
	f.DurationVar(&expires, "expires", 24*time.Hour, "how long it is valid")
	f.StringArrayVar(&claims, "claim", nil, "a further claim, NAME=VALUE; may be repeated")
	return cmd
}

// issuedInfo is an issued ticket as JSON.
type issuedInfo struct {
	Token   string          `json:"token"`
	Ticket  identity.ID     `json:"ticket"`
	Signer  identity.PeerID `json:"signer"`
	Expires time.Time       `json:"expires"`
}

// claimsOf reads claims as flags have them.
func claimsOf(list []string) (map[string]any, error) {
	claims := make(map[string]any)
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--claim %s: NAME=VALUE is wanted", text)
		}
		if _, twice := claims[name]; twice {
			return nil, fmt.Errorf("--claim %s: given twice", name)
		}
		var v any
		if json.Unmarshal([]byte(value), &v) != nil {
			v = value
		} else {
			v = json.RawMessage(value) // numbers as they are written
		}
		claims[name] = v
	}
	return claims, nil
}

// readToken returns the token of an argument; - is standard input.
func readToken(g *globals, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	b, err := io.ReadAll(io.LimitReader(g.in, identity.MaxTicket+2))
	return strings.TrimSpace(string(b)), err
}

// newTicketInspectCmd returns the verb that shows what a ticket says.
func newTicketInspectCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect TOKEN",
		Short: "Show what a ticket says, without believing it",
		Long: `Decodes a JSON Web Token and prints its header and its claims, one a line. Nothing is
checked: anybody can write anything into a token (ticket verify). TOKEN is - for
standard input.`,
		Example: `  mosaik-node ticket inspect - < token`,
		Args:    exactly("TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := readToken(g, args[0])
			if err != nil {
				return err
			}
			parts := strings.Split(token, ".")
			if len(parts) != 3 {
				return usage(cmd, fmt.Errorf("%d parts, a token has three", len(parts)))
			}
			for _, part := range parts[:2] {
				b, err := base64.RawURLEncoding.DecodeString(part)
				if err != nil || !json.Valid(b) {
					return usage(cmd, errors.New("it is no JSON Web Token"))
				}
				if _, err := fmt.Fprintln(g.out, string(b)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// newTicketVerifyCmd returns the verb that checks a ticket.
func newTicketVerifyCmd(g *globals) *cobra.Command {
	var peer, at string
	var keys, issuers, audiences, claims []string
	var lifetime, age time.Duration
	cmd := &cobra.Command{
		Use:   "verify TOKEN --peer PEER --key ALG:HEX",
		Short: "Say whether a ticket would let a peer in",
		Long: `Checks a JSON Web Token as a node would that asks for one: signed with one of the keys,
for this peer, by an issuer and for an audience that are allowed, valid now. A key is
EdDSA:PEER, the peer that signs; ES256:, ES384: or ES512: and a compressed point in hex; or
HS256:, HS384: or HS512: and a secret in hex, or @FILE with the hex in it.

It ends with exit code 13 and the reason if the ticket is not accepted. TOKEN is - for
standard input.`,
		Example: `  mosaik-node ticket verify - --peer 2369f85da1bd25876f5e731e3d9eecbc8bf6b9a93a534b77a1a53724e37e8690 --key EdDSA:ea478ef0198b9d0bd039618d55c5d457e4bbc04bba5240c711522f357e63efe5 < token`,
		Args:    exactly("TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			holder, err := identity.ParsePeerID(peer)
			if err != nil {
				return usage(cmd, fmt.Errorf("--peer: %w", err))
			}
			o := identity.JWTOptions{Issuers: issuers, Audiences: audiences, MaxLifetime: lifetime, MaxAge: age}
			for _, text := range keys {
				k, err := jwtKeyOf(text)
				if err != nil {
					return usage(cmd, fmt.Errorf("--key: %w", err))
				}
				o.Keys = append(o.Keys, k)
			}
			if o.Claims, err = claimsOf(claims); err != nil {
				return usage(cmd, err)
			}
			now := time.Now()
			if at != "" {
				if now, err = time.Parse(time.RFC3339, at); err != nil {
					return usage(cmd, fmt.Errorf("--at: %w", err))
				}
			}
			validator, err := identity.NewJWT(o)
			if err != nil {
				return usage(cmd, err)
			}
			token, err := readToken(g, args[0])
			if err != nil {
				return err
			}
			ticket := identity.Ticket{Class: identity.JWTClass(), Data: []byte(token)}
			until, err := identity.Require(validator).Admit(&identity.PeerEntry{Peer: holder, Tickets: []identity.Ticket{ticket}}, now)
			if err != nil {
				return err
			}
			if g.json {
				return printLine(g.out, acceptedInfo{true, ticket.ID(), until.String()})
			}
			_, err = fmt.Fprintf(g.out, "accepted: ticket %s lets %s in until %s\n", ticket.ID().Short(), holder.Short(), until)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&peer, "peer", "", "the peer that holds it")
	f.StringArrayVar(&keys, "key", nil, "a key that may have signed it, ALG:HEX; may be repeated")
	f.StringArrayVar(&issuers, "issuer", nil, "an issuer that is allowed; may be repeated (default: any)")
	f.StringArrayVar(&audiences, "audience", nil, "an audience that is allowed; may be repeated (default: any)")
	f.StringArrayVar(&claims, "claim", nil, "a claim it must have, NAME=VALUE; may be repeated")
	f.DurationVar(&lifetime, "max-lifetime", 0, "how long it may be valid yet")
	f.DurationVar(&age, "max-age", 0, "how long ago it may have been issued")
	f.StringVar(&at, "at", "", "the time to judge it at, RFC 3339 (default: now)")
	return cmd
}

// acceptedInfo is an accepted ticket as JSON.
type acceptedInfo struct {
	Accepted bool        `json:"accepted"`
	Ticket   identity.ID `json:"ticket"`
	Until    string      `json:"until"` // RFC 3339, or "never"
}

// jwtKeyOf reads a key as a flag has it.
func jwtKeyOf(text string) (identity.JWTKey, error) {
	alg, digits, ok := strings.Cut(text, ":")
	if !ok {
		return identity.JWTKey{}, errors.New("ALG:HEX is wanted")
	}
	if path, isFile := strings.CutPrefix(digits, "@"); isFile {
		b, err := os.ReadFile(path)
		if err != nil {
			return identity.JWTKey{}, err
		}
		digits = strings.TrimSpace(string(b))
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return identity.JWTKey{}, errors.New("it is not hex") // without a piece of a secret
	}
	return identity.NewJWTKey(alg, b)
}
