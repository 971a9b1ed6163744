package fuzz

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTargets looks for fuzz targets in the module's tests and holds the list
// against what it finds. A target without seeds starts from nothing each time,
// so each has some: in testdata, or added by itself.
func TestTargets(t *testing.T) {
	var listed []string
	for _, target := range Targets() {
		listed = append(listed, target.Package+" "+target.Name)
		if target.Input == "" {
			t.Errorf("%s: its input is not described", target.Name)
		}
	}
	if !slices.IsSorted(listed) {
		t.Error("the list is not sorted")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || isModule(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") || d.Name() == "canary_test.go" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			found = append(found, filepath.ToSlash(dir)+" "+f.Name.Name)
			seeds, err := filepath.Glob(filepath.Join(filepath.Dir(path), "testdata", "fuzz", f.Name.Name, "*"))
			if err != nil {
				return err
			}
			if len(seeds) == 0 && !addsSeeds(f) {
				t.Errorf("%s in %s has no seeds", f.Name.Name, dir)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		if !slices.Contains(listed, name) {
			t.Errorf("%s is not in the list of targets.go", name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(found, name) {
			t.Errorf("%s is in the list and nowhere else", name)
		}
	}
}

// isModule reports whether dir holds a module of its own.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// addsSeeds reports whether the target calls Add on something.
func addsSeeds(f *ast.FuncDecl) bool {
	adds := false
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Add" {
				adds = true
			}
		}
		return !adds
	})
	return adds
}
