package conf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// settings returns a set with a flag of every kind the daemon has.
func settings() *pflag.FlagSet {
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	size := Bytes(64 << 20)
	set.String("listen", "127.0.0.1:7070", "")
	set.Int("spread", 0, "")
	set.Duration("propose-timeout", 10*time.Second, "")
	set.StringSlice("named", nil, "")
	set.Bool("quiet", false, "")
	set.Var(&size, "cache-bytes", "")
	return set
}

func load(t *testing.T, args []string, env map[string]string, file string) ([]Setting, error) {
	t.Helper()
	set := settings()
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	path := ""
	if file != "" {
		t.Chdir(t.TempDir())
		path = "node.toml"
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(set, path, func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	})
}

func text(list []Setting) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%s=%s (%s)\n", s.Name, s.Value, s.From)
	}
	return b.String()
}

func TestPrecedence(t *testing.T) {
	list, err := load(t,
		[]string{"--listen", "1.1.1.1:1"},
		map[string]string{"MOSAIK_LISTEN": "2.2.2.2:2", "MOSAIK_PROPOSE_TIMEOUT": "3s", "MOSAIK_SPREAD": "", "MOSAIK_OTHER": "is not ours"},
		"# a comment\n"+
			"listen = \"3.3.3.3:3\"\n"+
			"propose-timeout = \"4s\"\n"+
			"\n"+
			"spread = 5\n"+
			"named = [\"orders\", \"audit, monthly\"]\n"+
			"cache-bytes = \"1GiB\"\n")
	if err != nil {
		t.Fatal(err)
	}
	want := `cache-bytes=1GiB (node.toml:7)
listen=1.1.1.1:1 (flag)
named=[orders,"audit, monthly"] (node.toml:6)
propose-timeout=3s (env MOSAIK_PROPOSE_TIMEOUT)
quiet=false (default)
spread=5 (node.toml:5)
`
	if got := text(list); got != want {
		t.Errorf("have\n%swant\n%s", got, want)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ file, env, want string }{
		{file: "listen = \"a\"\nlisten-on = \"b\"\n", want: "node.toml:2: listen-on: there is no such setting"},
		{file: "spread = 1\n\n[engine]\nlisten = \"a\"\n", want: "node.toml:3: engine: there is no such setting"},
		{file: "spread = 1\nengine.listen = \"a\"\n", want: "node.toml: engine.listen: there is no such setting"},
		{file: "[[groups]]\nname = \"a\"\n", want: "node.toml:1: groups: there is no such setting"},
		{file: "spread = \"many\"\n", want: `node.toml:1: spread: strconv`},
		{file: "spread = [\"1\"]\n", want: "node.toml:1: spread: one value is wanted"},
		{file: "named = [1]\n", want: "node.toml:1: named: a list of strings is wanted"},
		{file: "spread = 1.5\n", want: "node.toml:1: spread: a float64 is no value"},
		{file: "cache-bytes = \"64 apples\"\n", want: `node.toml:1: cache-bytes: "64 apples" is not a size`},
		{file: "propose-timeout = 10\n", want: "node.toml:1: propose-timeout: time: missing unit"},
		{file: "spread = \n", want: "node.toml:1:"},
		{file: "spread = 1\nspread = 2\n", want: "node.toml:2: spread:"},
		{env: "MOSAIK_SPREAD", want: `MOSAIK_SPREAD="x": strconv`},
	} {
		env := map[string]string{}
		if c.env != "" {
			env[c.env] = "x"
		}
		_, err := load(t, nil, env, c.file)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: have %v, want ...%s...", c.file+c.env, err, c.want)
		}
	}
}

// A mistake in the file counts also where a flag hides it.
func TestHiddenMistake(t *testing.T) {
	_, err := load(t, []string{"--spread", "3"}, nil, "spread = \"x\"\n")
	if !errors.Is(err, ErrConfig) {
		t.Errorf("have %v, want ErrConfig", err)
	}
	list, err := load(t, []string{"--named", "a,b", "--spread", "3"}, nil, "spread = 4\nnamed = [\"c\"]\n")
	if err != nil || !strings.Contains(text(list), "named=[a,b] (flag)") || !strings.Contains(text(list), "spread=3 (flag)") {
		t.Errorf("have %v\n%s", err, text(list))
	}
}

func TestNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent.toml")
	_, err := Load(settings(), path, func(string) (string, bool) { return "", false })
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), path) {
		t.Errorf("have %v", err)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "1000": 1000, "1KiB": 1 << 10, "512 MiB": 512 << 20, "2TiB": 2 << 40} {
		var b Bytes
		if err := b.Set(text); err != nil || b != want {
			t.Errorf("%q: have %d, %v; want %d", text, b, err, want)
		}
		var again Bytes
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q prints as %q, which is %d, %v", text, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "-1", "1MB", "MiB", "1.5GiB", "9999999999999TiB"} {
		var b Bytes
		if err := b.Set(text); err == nil {
			t.Errorf("%q is accepted as %d", text, b)
		}
	}
}

// FuzzLoad holds Load against any file: it must return, and either refuse it
// as ErrConfig or leave every setting with a value that its flag accepts.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"", "listen = \"a\"\n", "a.b.c = 1\n", "[x]\ny = 1\n", "named = [\"a\"]\nspread = 3\n", "spread = 1e3\n", "\"listen\" = 'x'\n", "cache-bytes = 0x10\n"} {
		f.Add(seed)
	}
	path := filepath.Join(f.TempDir(), "node.toml")
	f.Fuzz(func(t *testing.T, file string) {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		set := settings()
		list, err := Load(set, path, func(string) (string, bool) { return "", false })
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Fatalf("%q: %v", file, err)
			}
			return
		}
		if len(list) != 6 {
			t.Fatalf("%q: %d settings", file, len(list))
		}
	})
}
