// Package mosaik is a replicated, replayable log to embed in a Go program: the
// one package to import for opening a node. What is stored in it and read from
// it is in package log, how it is replicated and kept in package engine, how it
// is checked afterwards in package replay.
//
// This package holds wiring only, no logic of its own.
package mosaik

import "github.com/mosaik-engine/mosaik/engine"

// Node is one open store with its groups: engine.Engine by its everyday name.
type Node = engine.Engine

// Group is one replicated log of commits of a Node: engine.Group.
type Group = engine.Group

// Options say how to open a Node; nil and the zero value are a node alone, with
// defaults for everything: engine.Options.
type Options = engine.Options

// Open opens the store in dir, making it if there is none: engine.Open.
func Open(dir string, opts *Options) (*Node, error) { return engine.Open(dir, opts) }
