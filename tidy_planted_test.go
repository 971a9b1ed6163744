package mosaik_test

import (
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// plant parses a file that is not there.
func plant(t *testing.T, path, src string) goFile {
	t.Helper()
	f, err := parseGo(token.NewFileSet(), path, []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// expect holds what a rule found against the one thing it should have found;
// "" stands for nothing.
func expect(t *testing.T, problems []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(problems) != 0:
		t.Errorf("found in what is fine: %q", problems)
	case want != "" && (len(problems) != 1 || !strings.Contains(problems[0], want)):
		t.Errorf("found %q, want one problem with %q", problems, want)
	}
}

// TestTidyFindsPlanted gives every rule on single files a violation to find and
// something similar to leave alone.
func TestTidyFindsPlanted(t *testing.T) {
	const ours = module + "/"
	importing := func(imported string) string { return "package x\n\nimport _ \"" + imported + "\"\n" }
	for _, c := range []struct {
		name string
		rule func(goFile) []string
		path string
		src  string
		want string
	}{
		{"identity stands alone", wrongImports, "identity/x.go", importing(ours + "log"), "identity may not import log"},
		{"log on identity", wrongImports, "log/x.go", importing(ours + "identity"), ""},
		{"engine upwards", wrongImports, "engine/x.go", importing(ours + "network"), "engine may not import network"},
		{"engine upwards from a folder in it", wrongImports, "engine/inproc/x.go", importing(ours + "coalition"), "engine may not import coalition"},
		{"engine within", wrongImports, "engine/x.go", importing(ours + "engine/inproc"), ""},
		{"replay beside engine", wrongImports, "replay/x.go", importing(ours + "engine"), "replay may not import engine"},
		{"replay's tests on engine", wrongImports, "replay/x_test.go", importing(ours + "engine"), ""},
		{"nobody on cmd", wrongImports, "bench/x.go", importing(ours + "cmd/mosaik-node/internal"), "bench may not import cmd"},
		{"root imported from below", wrongImports, "organisms/x.go", importing(module), "organisms may not import ."},
		{"root on rooms", wrongImports, "x.go", importing(ours + "engine"), ""},
		{"unknown room", wrongImports, "attic/x.go", "package x\n", "attic is not in the import picture"},
		{"standard log", wrongImports, "cmd/mosaik-node/x_test.go", importing("log"), "standard log"},
		{"slog", wrongImports, "engine/x.go", importing("log/slog"), ""},
		{"pebble above engine", wrongImports, "replay/x.go", importing("github.com/cockroachdb/pebble/v2/vfs"), "replay may not import"},
		{"pebble in engine", wrongImports, "engine/raftlog/x.go", importing("github.com/cockroachdb/pebble/v2/vfs"), ""},
		{"pebble in tests", wrongImports, "replay/x_test.go", importing("github.com/cockroachdb/pebble/v2/vfs"), ""},
		{"old pebble", wrongImports, "engine/x_test.go", importing("github.com/cockroachdb/pebble"), "engine may not import"},
		{"dragonboat in tests too", wrongImports, "replay/x_test.go", importing("github.com/lni/dragonboat/v4"), "replay may not import"},
		{"dragonboat in engine", wrongImports, "engine/x.go", importing("github.com/lni/dragonboat/v4"), ""},
		{"attestation", wrongImports, "identity/x.go", importing("github.com/google/go-tdx-guest/verify"), "identity may not import"},
		{"cobra", wrongImports, "bench/x.go", importing("github.com/spf13/cobra"), "bench may not import"},
		{"http below cmd", wrongImports, "engine/x.go", importing("net/http/pprof"), "engine may not import"},
		{"http in cmd", wrongImports, "cmd/mosaik-node/internal/api/x.go", importing("net/http"), ""},
		{"a folder that only starts like one", wrongImports, "fuzz/x.go", importing("net/httpx"), ""},
		{"metrics below cmd", wrongImports, "engine/x.go", importing("github.com/prometheus/client_golang/prometheus"), "engine may not import"},
		{"peers' modules", wrongImports, "bench/x.go", importing("github.com/nats-io/nats.go"), "bench may not import"},
		{"peers' modules in peers", wrongImports, "bench/peers/x.go", importing("github.com/nats-io/nats.go"), ""},
		{"test library in code", wrongImports, "log/x.go", importing("pgregory.net/rapid"), "log may not import"},

		{"func", undocumented, "x.go", "package x\n\nfunc F() {}\n", "exported func F"},
		{"func with a directive only", undocumented, "x.go", "package x\n\n//go:noinline\nfunc F() {}\n", "exported func F"},
		{"method", undocumented, "x.go", "package x\n\n// T is.\ntype T[P any] struct{}\n\nfunc (*T[P]) M() {}\n", "exported func M"},
		{"method of an unexported type", undocumented, "x.go", "package x\n\ntype t struct{}\n\nfunc (t) M() {}\n", ""},
		{"type", undocumented, "x.go", "package x\n\ntype T int\n", "exported type T"},
		{"type in a group", undocumented, "x.go", "package x\n\n// Types.\ntype (\n\tT int\n)\n", "exported type T"},
		{"const", undocumented, "x.go", "package x\n\nconst C = 1\n", "exported const C"},
		{"var in a commented group", undocumented, "x.go", "package x\n\n// Errors.\nvar (\n\tErrA error\n\tErrB error\n)\n", ""},
		{"field", undocumented, "x.go", "package x\n\n// T is.\ntype T struct {\n\tA int // is\n\n\tF int\n}\n", "field T.F"},
		{"field in an explained block", undocumented, "x.go", "package x\n\n// T is.\ntype T struct {\n\tF int\n\tA int // is, with F\n}\n", ""},
		{"field in the type's comment", undocumented, "x.go", "package x\n\n// T has F.\ntype T struct{ F int }\n", ""},
		{"interface method", undocumented, "x.go", "package x\n\n// T is.\ntype T interface{ M() }\n", "method T.M"},
		{"tests", undocumented, "x_test.go", "package x\n\nfunc F() {}\n", ""},

		{"format", unformatted, "x.go", "package x\nvar  a int\n", "not gofmt'ed"},
		{"formatted", unformatted, "x.go", "package x\n\nvar a int\n", ""},

		{"init", initFuncs, "x.go", "package x\n\nfunc init() {}\n", "func init"},
		{"method init", initFuncs, "x.go", "package x\n\nfunc (t) init() {}\n", ""},

		{"panic", unmarkedPanics, "x.go", "package x\n\nfunc f() { panic(1) }\n", "panic without"},
		{"panic marked for its neighbour", unmarkedPanics, "x.go", "package x\n\nfunc f() {\n\tpanic(1) // invariant: a\n\t_ = 0\n\tpanic(2)\n}\n", "x.go:6"},
		{"panic marked on the line", unmarkedPanics, "x.go", "package x\n\nfunc f() { panic(1) } // invariant: a\n", ""},
		{"panic marked above", unmarkedPanics, "x.go", "package x\n\nfunc f() {\n\t// invariant: a\n\t// and more of it\n\tpanic(1)\n}\n", ""},
		{"panic in tests", unmarkedPanics, "x_test.go", "package x\n\nfunc f() { panic(1) }\n", ""},

		{"goroutine of a literal", strayGoroutines, "x.go", "package x\n\nfunc f() {\n\tgo func() {}()\n}\n", "goroutine not started"},
		{"goroutine of another method", strayGoroutines, "x.go", "package x\n\nfunc f() { go x.loop() }\n", "goroutine not started"},
		{"goroutine to be found", strayGoroutines, "x.go", "package x\n\nfunc f() {\n\tgo x.y.runLoop(1)\n\tgo runLoop(2)\n}\n", ""},
		{"goroutine in tests", strayGoroutines, "x_test.go", "package x\n\nfunc f() { go g() }\n", ""},

		{"sleep", idleTests, "x_test.go", "package x\n\nfunc f() { time.Sleep(1) }\n", "a test sleeps"},
		{"skip", idleTests, "x_test.go", "package x\n\nfunc f() { t.Skipf(\"\") }\n", "a test skips"},
		{"sleep in code", idleTests, "x.go", "package x\n\nfunc f() { time.Sleep(1) }\n", ""},
		{"sleep on a fake clock", idleTests, "x_test.go", "package x\n\nimport \"testing/synctest\"\n\nfunc f() { time.Sleep(1) }\n", ""},
		{"another Sleep", idleTests, "x_test.go", "package x\n\nfunc f() { clock.Sleep(1) }\n", ""},

		{"package name", emptyNames, "engine/x.go", "package util\n", "util names no content"},
		{"folder name", emptyNames, "log/common/x.go", "package x\n", "common names no content"},
		{"test package name", emptyNames, "log/x_test.go", "package misc_test\n", "misc names no content"},
		{"a name that contains one", emptyNames, "log/x.go", "package commonlog\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, c.rule(plant(t, c.path, c.src)), c.want)
		})
	}
}

func TestTidyFindsMissingPackageComments(t *testing.T) {
	for _, c := range []struct {
		name string
		src  map[string]string
		want string
	}{
		{"none", map[string]string{"a/x.go": "package a\n", "a/y.go": "package a\n"}, "a: package a has no package comment"},
		{"of another name", map[string]string{"a/x.go": "// Package b is.\npackage a\n"}, "a: package a has no package comment"},
		{"only on its external test", map[string]string{"a/x.go": "package a\n", "a/x_test.go": "// Package a is.\npackage a_test\n"}, "a: package a"},
		{"one of two", map[string]string{"a/x.go": "package a\n", "a/y.go": "// Package a is.\npackage a\n"}, ""},
		{"command without", map[string]string{"cmd/c/main.go": "package main\n"}, "cmd/c: package main"},
		{"command", map[string]string{"cmd/c/main.go": "// Command c does.\npackage main\n"}, ""},
		{"tests alone without", map[string]string{"a/x_test.go": "package a_test\n"}, "a folder of tests alone"},
		{"tests alone", map[string]string{"a/x_test.go": "// These tests hold.\npackage a_test\n"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files []goFile
			for path, src := range c.src {
				files = append(files, plant(t, path, src))
			}
			expect(t, missingPackageComments(files), c.want)
		})
	}
}

func TestTidyFindsDroppedErrors(t *testing.T) {
	const head = "package x\n\nimport \"iter\"\n\ntype T struct{}\n\n" +
		"func (T) All() iter.Seq2[int, error] { return nil }\n" +
		"func pairs() iter.Seq2[int, string] { return nil }\n" +
		"func plain(yield func(int, error) bool) {}\n\n"
	for _, c := range []struct{ name, body, want string }{
		{"one variable", "func f() {\n\tfor range 3 {\n\t}\n\tfor v := range (T{}).All() {\n\t\t_ = v\n\t}\n}\n", "x.go:14: range drops"},
		{"none", "func f() {\n\tfor range (T{}).All() {\n\t}\n}\n", "range drops"},
		{"blank", "func f() {\n\tfor v, _ := range (T{}).All() {\n\t\t_ = v\n\t}\n}\n", "range drops"},
		{"a function that is one", "func f() {\n\tfor v := range plain {\n\t\t_ = v\n\t}\n}\n", "range drops"},
		{"through a variable", "func f() {\n\tseq := (T{}).All()\n\tfor v := range seq {\n\t\t_ = v\n\t}\n}\n", "range drops"},
		{"taken", "func f() error {\n\tfor _, err := range (T{}).All() {\n\t\treturn err\n\t}\n\treturn nil\n}\n", ""},
		{"no error in it", "func f() {\n\tfor v := range pairs() {\n\t\t_ = v\n\t}\n}\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := plant(t, "x.go", head+c.body)
			info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
			conf := types.Config{Importer: importer.ForCompiler(f.fset, "source", nil)}
			if _, err := conf.Check("x", f.fset, []*ast.File{f.file}, info); err != nil {
				t.Fatal(err)
			}
			expect(t, droppedErrors(f.fset, []*ast.File{f.file}, info), c.want)
		})
	}
}

func TestTidyFindsUntidyText(t *testing.T) {
	for _, c := range []struct{ name, path, text, want string }{
		{"fine", "README.md", "text\n", ""},
		{"empty", "a/.keep", "", ""},
		{"no newline", "README.md", "text", "does not end in a newline"},
		{"binary", "a.md", "a\x00b\n", "is not text"},
		{"not UTF-8", "a.md", "a\xffb\n", "is not text"},
		{"large", "a.md", strings.Repeat("a", maxFileSize) + "\n", "the limit is"},
		{"marker", "a.go", "a\n// TO" + "DO: b\n", "a.go:2"},
		{"another marker", "a.md", "FIX" + "ME\n", "a.md:1"},
		{"a third", "a.yml", "# XX" + "X\n", "a.yml:1"},
		{"inside a word", "a.md", "mktemp a.XX" + "XXXX\n", ""},
		{"machine path", "a.sh", "cd /ro" + "ot/x\n", "names a path"},
		{"machine path in a string", "a.go", "x := \"/wo" + "rk/main\"\n", "names a path"},
		{"home", "a.md", "/ho" + "me/ann/x\n", "names a path"},
		{"part of a path", "a.md", "see engine/work/x and ../work/y\n", ""},
		{"hash", "go.sum", "m v1 h1:/ro" + "ot/XX" + "X=\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, untidyText(c.path, []byte(c.text)), c.want)
		})
	}
}
