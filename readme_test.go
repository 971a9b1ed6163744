package mosaik_test

// The documents as tests: what they name has to be there.

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// fences returns the fenced blocks of a Markdown text whose info string is one
// of infos.
func fences(markdown string, infos ...string) []string {
	var blocks []string
	for i, part := range strings.Split("\n"+markdown, "\n```") {
		if info, block, ok := strings.Cut(part, "\n"); ok && i%2 == 1 {
			for _, want := range infos {
				if info == want {
					blocks = append(blocks, block+"\n")
				}
			}
		}
	}
	return blocks
}

const (
	regionBegin = "// readme: begin\n"
	regionEnd   = "// readme: end\n"
)

// differingExample holds the first Go block of a Markdown text against the
// marked region of a source file.
func differingExample(markdown, source string) []string {
	blocks := fences(markdown, "go")
	if len(blocks) == 0 {
		return []string{"no Go block"}
	}
	_, region, begun := strings.Cut(source, regionBegin)
	region, _, ended := strings.Cut(region, regionEnd)
	if !begun || !ended {
		return []string{"no marked region in the source"}
	}
	if strings.TrimSpace(blocks[0]) != strings.TrimSpace(region) {
		return []string{"the Go block is not the marked region of the source, which is\n" + region}
	}
	return nil
}

func TestReadmeExample(t *testing.T) {
	report(t, differingExample(read(t, "README.md"), read(t, "examples/embed/main.go")))

	const source = "a\n" + regionBegin + "\nb\n\n" + regionEnd
	expect(t, differingExample("x\n\n```sh\nb\n```\n\n```go\nb\n```\n", source), "")
	expect(t, differingExample("```go\nc\n```\n", source), "is not the marked region")
	expect(t, differingExample("```go\nb\n```\n", "b\n"), "no marked region")
	expect(t, differingExample("```sh\nb\n```\n", source), "no Go block")
}

var (
	makeCall = regexp.MustCompile("(?m)(?:^|`)make ([a-z][a-z-]*)")
	makeRule = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
)

// unknownTargets finds calls of make, in code, of targets a Makefile lacks.
func unknownTargets(markdown, makefile string) []string {
	targets := map[string]bool{}
	for _, rule := range makeRule.FindAllStringSubmatch(makefile, -1) {
		targets[rule[1]] = true
	}
	var problems []string
	for _, call := range makeCall.FindAllStringSubmatch(markdown, -1) {
		if !targets[call[1]] {
			problems = append(problems, fmt.Sprintf("make %s: the Makefile has no such target", call[1]))
		}
	}
	return problems
}

func TestMakeTargets(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, name := range treeFiles(t) {
		if path.Ext(name) == ".md" {
			for _, problem := range unknownTargets(read(t, name), makefile) {
				t.Errorf("%s: %s", name, problem)
			}
		}
	}

	const rules = "run: build\n\trun\n\nbuild:\n\nVAR := x\n"
	expect(t, unknownTargets("```sh\nmake run  # runs\n```\n`make build` and make sense\n", rules), "")
	expect(t, unknownTargets("```sh\nmake gold\n```\n", rules), "make gold")
	expect(t, unknownTargets("as `make gold` does\n", rules), "make gold")
}

var markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// brokenLinks finds relative links in the document at name whose target is not
// in tree.
func brokenLinks(tree fs.FS, name, markdown string) []string {
	var problems []string
	for _, link := range markdownLink.FindAllStringSubmatch(markdown, -1) {
		target, _, _ := strings.Cut(link[1], "#")
		if target == "" || strings.Contains(target, "://") {
			continue
		}
		if _, err := fs.Stat(tree, path.Join(path.Dir(name), target)); err != nil {
			problems = append(problems, fmt.Sprintf("%s: link to %s: %v", name, target, err))
		}
	}
	return problems
}

func TestLinks(t *testing.T) {
	tree := os.DirFS(".")
	for _, name := range treeFiles(t) {
		if path.Ext(name) == ".md" {
			report(t, brokenLinks(tree, name, read(t, name)))
		}
	}

	expect(t, brokenLinks(tree, "docs/x.md", "[a](../README.md) [b](https://a.example/x) [c](#c) [d](ARCHITECTURE.md#limits)\n"), "")
	expect(t, brokenLinks(tree, "docs/x.md", "[a](README.md)\n"), "link to README.md")
}

var limitRow = regexp.MustCompile("(?m)^\\|[^|]*\\| (\\d+)[^|]*\\| `([a-z]+)\\.([A-Za-z]+)` \\|$")

// wrongLimits holds the rows of a table, | what | number | `package.Constant` |,
// against the constants.
func wrongLimits(markdown string, constant func(pkg, name string) string) []string {
	rows := limitRow.FindAllStringSubmatch(markdown, -1)
	if len(rows) == 0 {
		return []string{"no row with a constant"}
	}
	var problems []string
	for _, row := range rows {
		if have := constant(row[2], row[3]); have != row[1] {
			problems = append(problems, fmt.Sprintf("%s.%s is %q, the document says %s", row[2], row[3], have, row[1]))
		}
	}
	return problems
}

// constantOf evaluates a constant of the package in a top-level folder that is
// declared by an expression of literals, and returns "" if there is none.
func constantOf(t *testing.T, pkg, name string) string {
	t.Helper()
	entries, err := os.ReadDir(pkg)
	if err != nil {
		t.Fatal(err)
	}
	value := ""
	fset := token.NewFileSet()
	for _, entry := range entries {
		if path.Ext(entry.Name()) != ".go" || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path.Join(pkg, entry.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 && spec.Names[0].Name == name {
				if v, err := types.Eval(fset, nil, token.NoPos, types.ExprString(spec.Values[0])); err == nil && v.Value != nil {
					value = v.Value.String()
				}
			}
			return true
		})
	}
	return value
}

func TestLimits(t *testing.T) {
	report(t, wrongLimits(read(t, "docs/ARCHITECTURE.md"), func(pkg, name string) string { return constantOf(t, pkg, name) }))

	constants := func(pkg, name string) string { return map[string]string{"log.Max": "7"}[pkg+"."+name] }
	expect(t, wrongLimits("| a | 7 bytes | `log.Max` |\n| b | 8 | `log/x.go` |\n", constants), "")
	expect(t, wrongLimits("| a | 8 | `log.Max` |\n", constants), "log.Max is \"7\"")
	expect(t, wrongLimits("| a | 8 | `log.Min` |\n", constants), "log.Min is \"\"")
	expect(t, wrongLimits("| a | 8 | log |\n", constants), "no row")
}
