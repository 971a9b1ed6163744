# make run    build, and show the whole thing at work on three nodes
# make test   every test
# make ci     what has to pass before a change is taken; .ci/run calls it
#
# Needs Go and a C compiler (for the race detector), nothing else. The
# variables below may be set on the command line: make run DEMOFLAGS='--rate max'

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
DEMOFLAGS ?=
# Of make bench and make bench-peers.
BENCHFLAGS ?=
PEERFLAGS  ?=
# How long each fuzz target runs, and how many seeds the simulation plays.
FUZZTIME  ?= 2s
SIMSEEDS  ?= 5
# The same, for make soak.
SOAKTIME  ?= 10m
SOAKSEEDS ?= 1000

# The packages that start goroutines. The others have nothing to race.
RACY := ./engine/... ./log/... ./snapshot/... ./replay/... ./network/... ./organisms/... ./cmd/...

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
# Go runs as much at a time as there are cores; two goals at a time would only
# take the time from tests that have deadlines.
.NOTPARALLEL:
.PHONY: all build run test race rest fuzz canary sim soak lint tidy bench bench-peers ci clean

all: build

build:
	$(GO) build -buildvcs=false -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/mosaik-node ./cmd/mosaik-node

run: build
	bin/mosaik-node demo $(DEMOFLAGS)

test:
	$(GO) test -timeout 10m ./...

race:
	$(GO) test -race -timeout 15m $(RACY)

# What race leaves out: the other packages, and those whose tests do more, or are timed by
# another clock, without the race detector. With race, every test has run.
rest:
	$(GO) test -timeout 10m $$($(GO) list ./... | grep -vxFf <($(GO) list $(RACY))) ./engine ./engine/inproc ./network/catalog

# Each fuzz target for FUZZTIME, after the canary.
fuzz: canary
	.ci/fuzz $(FUZZTIME)

# A decoder with a planted mistake. A fuzzer that does not find it finds nothing.
canary:
	.ci/canary

# One group of three nodes under stops, restarts, delays, drops and reordering,
# SIMSEEDS times; every history is checked for linearizability.
sim:
	$(GO) test -list '^TestSimulation' ./fuzz | grep '^TestSimulation'
	MOSAIK_SIM_SEEDS=$(SIMSEEDS) $(GO) test -count=1 -timeout 15m -v -run '^TestSimulation' ./fuzz

# For hours, not for every change.
soak:
	MOSAIK_COLLECTION_SEEDS=$(SOAKSEEDS) $(GO) test -count=1 -timeout 0 -v -run '^TestCollectionsAgree' ./engine
	MOSAIK_SIM_SEEDS=$(SOAKSEEDS) $(GO) test -count=1 -timeout 0 -v -run '^TestSimulation' ./fuzz
	MOSAIK_TDX_FLIPS=all $(GO) test -count=1 -timeout 0 -v -run '^TestFlips' ./tdx
	.ci/fuzz $(SOAKTIME)

lint: tidy
	$(GO) vet ./...
	$(GO) vet -tags=canary ./fuzz/...
	$(GO) tool staticcheck ./...

# go.mod and go.sum name what the code imports, no more and no less.
tidy:
	$(GO) mod tidy -diff

bench: build
	bin/mosaik-node bench $(BENCHFLAGS)

# Other systems on the same machine with the same records. A module of its own,
# so that nobody who imports mosaik downloads them.
bench-peers:
	GO=$(GO) BENCHFLAGS='$(BENCHFLAGS)' PEERFLAGS='$(PEERFLAGS)' bench/peers-run.sh

# The tests come last, so that what a run ends with is their report.
ci: lint build fuzz sim race rest

clean:
	rm -rf bin
