package mosaik_test

// The house rules, kept by a test so that they cannot rot. Every rule is a
// function from parsed input to the list of its violations; TestTidy applies
// them to the tree, and tidy_planted_test.go plants one violation of each to
// show that the rule still bites. docs/ARCHITECTURE.md, "House rules", says why
// the rules are what they are.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "github.com/mosaik-engine/mosaik"

// below is the import picture: the rooms that a room's code may import. A room
// is a top-level folder, "." the root package. Every room may import itself.
var below = map[string][]string{
	"identity":  {},
	"log":       {"identity"},
	"engine":    {"identity", "log", "snapshot"},
	"replay":    {"identity", "log"},
	"tdx":       {"identity", "log"},
	"snapshot":  {"identity", "log"},
	"network":   {"identity", "log", "engine", "replay", "snapshot"},
	"organisms": {"identity", "log", "engine", "replay", "snapshot", "network", "tdx"},
	"coalition": {"identity", "log", "engine", "replay", "snapshot", "network", "tdx", "organisms"},
	".":         {"identity", "log", "engine", "replay", "snapshot", "network", "tdx", "organisms", "coalition"},
	"bench":     {"identity", "log", "engine", "replay", "snapshot", "network", "tdx", "organisms", "coalition", "."},
	"fuzz":      {"identity", "log", "engine", "replay", "snapshot", "network", "tdx", "organisms", "coalition", "."},
	"examples":  {"identity", "log", "engine", "replay", "snapshot", "network", "tdx", "organisms", "coalition", "."},
	"cmd":       {"identity", "log", "engine", "replay", "snapshot", "network", "tdx", "organisms", "coalition", ".", "bench", "fuzz"},
}

// belowTests is what a room's tests may import beyond below. The compiler
// refuses cycles, so this matters for external test packages only.
var belowTests = map[string][]string{
	"engine": {"replay", "fuzz"},
	"replay": {"engine"},
}

// outside says where an imported path that is not ours may appear.
type outside struct {
	prefix string   // import path, or its leading elements
	dirs   []string // folders whose code may import it, with what lies under them
	tests  bool     // whether tests of every folder may, too
}

// outsides is searched from the top; the first prefix that fits decides.
var outsides = []outside{
	{prefix: "github.com/cockroachdb/pebble/v2", dirs: []string{"engine", "snapshot", "bench", "fuzz"}, tests: true},
	{prefix: "github.com/cockroachdb/pebble"}, // the version that dragonboat drags in must not hold our data
	{prefix: "github.com/lni", dirs: []string{"engine", "network", "bench"}},
	{prefix: "github.com/google/go-tdx-guest", dirs: []string{"tdx"}},
	{prefix: "github.com/nats-io", dirs: []string{"bench/peers"}},
	{prefix: "go.etcd.io", dirs: []string{"bench/peers"}},
	{prefix: "github.com/spf13", dirs: []string{"cmd"}},
	{prefix: "github.com/prometheus", dirs: []string{"cmd"}},
	{prefix: "net/http", dirs: []string{"cmd", "organisms", "network", "tdx"}},
	{prefix: "github.com/cockroachdb/errors"}, // the standard errors package and %w
	{prefix: "github.com/pkg/errors"},
	// These register flags or carry assertions: an embedder must not inherit them.
	{prefix: "pgregory.net/rapid", dirs: []string{"fuzz"}, tests: true},
	{prefix: "github.com/anishathalye/porcupine", dirs: []string{"fuzz"}, tests: true},
	{prefix: "github.com/cockroachdb/datadriven", tests: true},
	{prefix: "github.com/rogpeppe/go-internal", tests: true},
	{prefix: "go.uber.org/goleak", tests: true},
}

// goFile is one parsed Go file.
type goFile struct {
	path string // slash-separated, relative to the root
	src  []byte
	fset *token.FileSet
	file *ast.File
}

func parseGo(fset *token.FileSet, path string, src []byte) (goFile, error) {
	file, err := parser.ParseFile(fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	return goFile{path: path, src: src, fset: fset, file: file}, err
}

func (f goFile) dir() string { return path.Dir(f.path) }

func (f goFile) room() string {
	room, _, _ := strings.Cut(f.dir(), "/")
	return room
}

func (f goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

func (f goFile) at(pos token.Pos, text string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.path, f.fset.Position(pos).Line, fmt.Sprintf(text, args...))
}

// within reports whether dir is one of dirs or lies under one.
func within(dir string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool {
		return dir == d || strings.HasPrefix(dir, d+"/")
	})
}

// wrongImports holds a file against the import picture.
func wrongImports(f goFile) []string {
	var problems []string
	if _, known := below[f.room()]; !known {
		problems = append(problems, f.at(f.file.Package, "folder %s is not in the import picture", f.room()))
	}
	for _, spec := range f.file.Imports {
		imported := strings.Trim(spec.Path.Value, "`\"")
		if imported == "log" {
			problems = append(problems, f.at(spec.Pos(), "imports the standard log package; a *slog.Logger comes with the options"))
		}
		if rest, ours := strings.CutPrefix(imported+"/", module+"/"); ours {
			room, _, _ := strings.Cut(rest, "/")
			if room == "" {
				room = "."
			}
			allowed := room == f.room() || slices.Contains(below[f.room()], room) ||
				f.isTest() && slices.Contains(belowTests[f.room()], room)
			if !allowed {
				problems = append(problems, f.at(spec.Pos(), "%s may not import %s: imports point downwards only", f.room(), room))
			}
			continue
		}
		for _, o := range outsides {
			if imported != o.prefix && !strings.HasPrefix(imported, o.prefix+"/") {
				continue
			}
			if !within(f.dir(), o.dirs) && !(o.tests && f.isTest()) {
				problems = append(problems, f.at(spec.Pos(), "%s may not import %s", f.dir(), imported))
			}
			break
		}
	}
	return problems
}

// missingPackageComments wants one file of every package to explain it.
func missingPackageComments(files []goFile) []string {
	explained := map[string]bool{}
	var order []goFile
	for _, f := range files {
		external := strings.HasSuffix(f.file.Name.Name, "_test")
		if external {
			continue // part of the package it tests, unless there is none: see below
		}
		if _, seen := explained[f.dir()]; !seen {
			explained[f.dir()] = false
			order = append(order, f)
		}
		text := f.file.Doc.Text()
		if strings.HasPrefix(text, "Package "+f.file.Name.Name+" ") || f.file.Name.Name == "main" && text != "" {
			explained[f.dir()] = true
		}
	}
	var problems []string
	for _, f := range order {
		if !explained[f.dir()] {
			problems = append(problems, fmt.Sprintf("%s: package %s has no package comment", f.dir(), f.file.Name.Name))
		}
	}
	for _, f := range files {
		if _, seen := explained[f.dir()]; !seen && f.file.Doc.Text() == "" {
			problems = append(problems, f.at(f.file.Package, "a folder of tests alone explains itself in a package comment"))
		}
	}
	return problems
}

// undocumented finds exported identifiers without a comment. Fields and
// methods of an exported type count; a field may share the comment of the
// fields it stands together with, or be explained in its type's comment.
func undocumented(f goFile) []string {
	if f.isTest() || ast.IsGenerated(f.file) {
		return nil
	}
	var problems []string
	report := func(name *ast.Ident, kind, of string) {
		problems = append(problems, f.at(name.Pos(), "exported %s %s%s has no doc comment", kind, of, name.Name))
	}
	for _, decl := range f.file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || receiverExported(d.Recv)) && d.Doc.Text() == "" {
				report(d.Name, "func", "")
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					doc := s.Doc.Text()
					if !d.Lparen.IsValid() {
						doc += d.Doc.Text()
					}
					if !s.Name.IsExported() {
						continue
					}
					if doc == "" {
						report(s.Name, "type", "")
					}
					switch t := s.Type.(type) {
					case *ast.StructType:
						for _, name := range bareFields(f.fset, t.Fields, doc) {
							report(name, "field", s.Name.Name+".")
						}
					case *ast.InterfaceType:
						for _, name := range bareFields(f.fset, t.Methods, doc) {
							report(name, "method", s.Name.Name+".")
						}
					}
				case *ast.ValueSpec:
					if d.Doc.Text()+s.Doc.Text()+s.Comment.Text() != "" {
						continue
					}
					for _, name := range s.Names {
						if name.IsExported() {
							report(name, d.Tok.String(), "")
						}
					}
				}
			}
		}
	}
	return problems
}

func receiverExported(recv *ast.FieldList) bool {
	t := recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// bareFields returns the exported names in fields that nothing explains.
// Fields without an empty line between them are one block and share comments.
func bareFields(fset *token.FileSet, fields *ast.FieldList, typeDoc string) []*ast.Ident {
	var bare, block []*ast.Ident
	explained, lastLine := false, 0
	flush := func() {
		if !explained {
			bare = append(bare, block...)
		}
		block, explained = nil, false
	}
	for _, field := range fields.List {
		start := field.Pos()
		if field.Doc != nil {
			start = field.Doc.Pos()
		}
		if fset.Position(start).Line > lastLine+1 {
			flush()
		}
		lastLine = fset.Position(field.End()).Line
		explained = explained || field.Doc.Text()+field.Comment.Text() != ""
		for _, name := range field.Names {
			if name.IsExported() && !regexp.MustCompile(`\b`+name.Name+`\b`).MatchString(typeDoc) {
				block = append(block, name)
			}
		}
	}
	flush()
	return bare
}

// unformatted compares a file with what gofmt makes of it.
func unformatted(f goFile) []string {
	formatted, err := format.Source(f.src)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", f.path, err)}
	}
	if !bytes.Equal(formatted, f.src) {
		return []string{f.path + ": not gofmt'ed"}
	}
	return nil
}

// initFuncs finds init functions: state that exists because a package was
// imported.
func initFuncs(f goFile) []string {
	var problems []string
	for _, decl := range f.file.Decls {
		if d, ok := decl.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
			problems = append(problems, f.at(d.Pos(), "func init"))
		}
	}
	return problems
}

// unmarkedPanics finds panics that are not declared to be the report of a
// broken invariant, by a comment "// invariant: ..." on the line or above it.
func unmarkedPanics(f goFile) []string {
	if f.isTest() {
		return nil
	}
	marked := map[int]bool{}
	for _, group := range f.file.Comments {
		for _, comment := range group.List {
			if strings.HasPrefix(comment.Text, "// invariant: ") {
				marked[f.fset.Position(comment.Pos()).Line] = true
				marked[f.fset.Position(group.End()).Line+1] = true
			}
		}
	}
	var problems []string
	ast.Inspect(f.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "panic" && !marked[f.fset.Position(call.Pos()).Line] {
			problems = append(problems, f.at(call.Pos(), "panic without // invariant: operating errors are returned"))
		}
		return true
	})
	return problems
}

// strayGoroutines finds goroutines that are not started as go x.runSomething():
// those can be searched for, and are listed in their package's comment.
func strayGoroutines(f goFile) []string {
	if f.isTest() {
		return nil
	}
	var problems []string
	ast.Inspect(f.file, func(n ast.Node) bool {
		if start, ok := n.(*ast.GoStmt); ok {
			name := ""
			switch called := start.Call.Fun.(type) {
			case *ast.Ident:
				name = called.Name
			case *ast.SelectorExpr:
				name = called.Sel.Name
			}
			if !strings.HasPrefix(name, "run") {
				problems = append(problems, f.at(start.Pos(), "goroutine not started as go x.runSomething()"))
			}
		}
		return true
	})
	return problems
}

// idleTests finds tests that sleep, and so hope, or skip, and so do not test. A
// file of tests that run on synctest's clock may sleep: it does not take time.
func idleTests(f goFile) []string {
	if !f.isTest() {
		return nil
	}
	faked := slices.ContainsFunc(f.file.Imports, func(spec *ast.ImportSpec) bool {
		return spec.Path.Value == `"testing/synctest"`
	})
	var problems []string
	ast.Inspect(f.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if method, ok := call.Fun.(*ast.SelectorExpr); ok {
			of, _ := method.X.(*ast.Ident)
			switch {
			case method.Sel.Name == "Sleep" && of != nil && of.Name == "time" && !faked:
				problems = append(problems, f.at(call.Pos(), "a test sleeps: wait for what it waits for"))
			case slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, method.Sel.Name):
				problems = append(problems, f.at(call.Pos(), "a test skips"))
			}
		}
		return true
	})
	return problems
}

// emptyNames finds packages named for nothing in particular.
func emptyNames(f goFile) []string {
	banned := []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}
	names := append(strings.Split(f.dir(), "/"), strings.TrimSuffix(f.file.Name.Name, "_test"))
	for _, name := range names {
		if slices.Contains(banned, name) {
			return []string{f.at(f.file.Package, "%s names no content: name the package for what it gives", name)}
		}
	}
	return nil
}

// droppedErrors finds ranges over an iterator of (value, error) pairs that do
// not take the error. They compile and vet clean, and the loop ends as if the
// log had.
func droppedErrors(fset *token.FileSet, files []*ast.File, info *types.Info) []string {
	var problems []string
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			loop, ok := n.(*ast.RangeStmt)
			if !ok || !yieldsError(info.TypeOf(loop.X)) {
				return true
			}
			if blank, ok := loop.Value.(*ast.Ident); loop.Value == nil || ok && blank.Name == "_" {
				at := fset.Position(loop.Pos())
				problems = append(problems, fmt.Sprintf("%s:%d: range drops the iterator's error", at.Filename, at.Line))
			}
			return true
		})
	}
	return problems
}

// yieldsError reports whether t is func(yield func(V, error) bool).
func yieldsError(t types.Type) bool {
	if t == nil {
		return false
	}
	seq, ok := t.Underlying().(*types.Signature)
	if !ok || seq.Params().Len() != 1 {
		return false
	}
	yield, ok := seq.Params().At(0).Type().Underlying().(*types.Signature)
	return ok && yield.Params().Len() == 2 &&
		types.Identical(yield.Params().At(1).Type(), types.Universe.Lookup("error").Type())
}

const maxFileSize = 1 << 20

var (
	// In pieces, so that this file does not find itself.
	markers      = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	machinePaths = regexp.MustCompile(`(^|[^\w.~/-])/(root|work|home/\w+)/`)
)

// untidyText looks at any file of the tree, Go or not.
func untidyText(name string, data []byte) []string {
	if len(data) > maxFileSize {
		return []string{fmt.Sprintf("%s: %d bytes, the limit is %d", name, len(data), maxFileSize)}
	}
	if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) {
		return []string{name + ": is not text; the tree holds sources only"}
	}
	var problems []string
	if len(data) > 0 && data[len(data)-1] != '\n' {
		problems = append(problems, name+": does not end in a newline")
	}
	if path.Base(name) == "go.sum" {
		return problems // hashes, in which anything may occur
	}
	for i, line := range strings.Split(string(data), "\n") {
		if word := markers.FindString(line); word != "" {
			problems = append(problems, fmt.Sprintf("%s:%d: %s; finish it or write it into an issue", name, i+1, word))
		}
		if machinePaths.MatchString(line) {
			problems = append(problems, fmt.Sprintf("%s:%d: names a path of one machine", name, i+1))
		}
	}
	return problems
}

// treeFiles lists the files that are checked in, and the new sources that would
// be. Other new files are whatever somebody has tried out here.
func treeFiles(t *testing.T) []string {
	t.Helper()
	tracked, err := exec.Command("git", "ls-files", "-z").Output()
	if err == nil && bytes.Contains(tracked, []byte("go.mod\x00")) {
		added, err := exec.Command("git", "ls-files", "-z", "--others", "--exclude-standard", "*.go", "*.md").Output()
		if err != nil {
			t.Fatal(err)
		}
		names := strings.Split(string(tracked)+string(added), "\x00")
		return slices.DeleteFunc(names, func(name string) bool {
			info, err := os.Stat(name)
			return err != nil || !info.Mode().IsRegular() // deleted, not yet committed
		})
	}
	// An unpacked archive: everything is the tree, but what make builds.
	var names []string
	err = filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || name == "bin"):
			return filepath.SkipDir
		case entry.Type().IsRegular():
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestTidy holds the tree against the rules that need no types.
func TestTidy(t *testing.T) {
	var goFiles []goFile
	fset := token.NewFileSet()
	for _, name := range treeFiles(t) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		report(t, untidyText(name, data))
		if strings.HasSuffix(name, ".go") && !strings.Contains(name, "testdata/") {
			f, err := parseGo(fset, name, data)
			if err != nil {
				t.Error(err)
				continue
			}
			goFiles = append(goFiles, f)
		}
	}
	for _, f := range goFiles {
		for _, rule := range []func(goFile) []string{
			wrongImports, undocumented, unformatted, initFuncs, unmarkedPanics, strayGoroutines, idleTests, emptyNames,
		} {
			report(t, rule(f))
		}
	}
	report(t, missingPackageComments(goFiles))
}

func report(t *testing.T, problems []string) {
	t.Helper()
	for _, problem := range problems {
		t.Error(problem)
	}
}

// listed is what the go command tells about a package.
type listed struct {
	ImportPath, Dir, Export            string
	Standard                           bool
	GoFiles, TestGoFiles, XTestGoFiles []string
	TestImports, XTestImports          []string
	Error                              *struct{ Err string }
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-buildvcs=false",
		"-json=ImportPath,Dir,Export,Standard,GoFiles,TestGoFiles,XTestGoFiles,TestImports,XTestImports,Error"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.String())
	}
	var packages []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// TestNoDroppedErrors type-checks every package of the module, tests included,
// against the compiler's export data of what it imports. bench/peers is a
// module of its own and not looked at.
func TestNoDroppedErrors(t *testing.T) {
	packages := goList(t, "./...")
	imports := []string{"./..."}
	for _, p := range packages {
		imports = append(imports, p.TestImports...)
		imports = append(imports, p.XTestImports...)
	}
	slices.Sort(imports)
	exports := map[string]string{}
	for _, p := range goList(t, append([]string{"-export", "-deps"}, slices.Compact(imports)...)...) {
		exports[p.ImportPath] = p.Export
		if p.Error != nil && !p.Standard {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
	}

	fset := token.NewFileSet()
	fromExports := importer.ForCompiler(fset, "gc", func(imported string) (io.ReadCloser, error) {
		if exports[imported] == "" {
			return nil, fmt.Errorf("%s does not compile", imported)
		}
		return os.Open(exports[imported])
	})
	for _, p := range packages {
		inside := checkTypes(t, fset, p.ImportPath, p.Dir, append(p.GoFiles, p.TestGoFiles...), fromExports)
		from := fromExports
		if len(p.TestGoFiles) > 0 {
			// What the package exports to its external tests alone.
			from = oneReplaced{fromExports, inside}
		}
		checkTypes(t, fset, p.ImportPath+"_test", p.Dir, p.XTestGoFiles, from)
	}
}

// checkTypes type-checks the files as one package and reports dropped errors.
func checkTypes(t *testing.T, fset *token.FileSet, importPath, dir string, names []string, from types.Importer) *types.Package {
	t.Helper()
	var files []*ast.File
	for _, name := range names {
		file, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		files = append(files, file)
	}
	conf := types.Config{Importer: from, Error: func(err error) {
		// With its package replaced, an external test that passes that package's
		// types to a third one sees two of each. The types of its loops are known
		// all the same, and the compiler has the last word on the rest.
		if _, replaced := from.(oneReplaced); !replaced {
			t.Error(err)
		}
	}}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	pkg, _ := conf.Check(importPath, fset, files, info) // errors went to conf.Error
	report(t, droppedErrors(fset, files, info))
	return pkg
}

// oneReplaced imports one package from source and the others as before.
type oneReplaced struct {
	types.Importer
	pkg *types.Package
}

func (r oneReplaced) Import(imported string) (*types.Package, error) {
	if imported == r.pkg.Path() {
		return r.pkg, nil
	}
	return r.Importer.Import(imported)
}
