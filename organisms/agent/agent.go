// Package agent runs agents: organisms that observe others, decide, and commit what they
// decided with what it was decided on.
//
// How an agent decides is outside: a Go func, a process, a model behind HTTP. What it saw
// and what it was answered is in its journal, so its history can be read, folded and audited
// without asking the model again.
//
// # Steps
//
// The one primitive of the surface is [Journal]. A commit of it is a step: one commit of
// another organism that was observed, and the answer. Integers are little-endian.
//
//	source 2 | size 4 | observed, that many bytes | answer
//
// Its one piece of evidence points at the record that was observed. The machine takes a step
// only if that record comes after the last one of the same source, so an observation is
// answered once however often an agent is stopped or started twice. The result is 1, or 0 if
// the step was not taken.
//
// # Parameters
//
//	n 2 | key 32 of each source | decider 32
//
// The decider is whatever names how it decides, such as the hash of a model's name and its
// prompt: another one is another revision.
//
// # Rows
//
//	0x01, source 2  -> seq 8 of the last record that was observed
//
// The number of the source in a key is big-endian.
//
// # Goroutines and locks
//
//	runner.runSource  one per source of Run: reads it
//
// Run waits for them. The package takes no lock.
package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
)

// Role is the role of agents.
const Role = "agent"

// Journal is the name of an agent's surface.
const Journal = "journal"

// Limits.
const (
	// MaxSources bounds what an agent observes.
	MaxSources = 64
	// MaxObserved bounds the body of a commit that is observed, in bytes.
	MaxObserved = 256 << 10
	// MaxAnswer bounds an answer, in bytes.
	MaxAnswer = 64 << 10
)

// Errors of an agent.
var (
	// ErrStep says that a step is malformed, or does not follow from what it points at.
	ErrStep = errors.New("mosaik: bad step of an agent")
	// ErrAnswer says that a decider has not answered as it should.
	ErrAnswer = errors.New("mosaik: bad answer of a decider")
)

// Parameters are what an agent's steps depend on.
type Parameters struct {
	// Sources are the keys of the logs it observes (organisms.Surface.Key), 1 to MaxSources.
	Sources []identity.ID
	// Decider names how it decides.
	Decider identity.ID
}

// Config returns the config of an agent. The error wraps organisms.ErrConfig.
func Config(instanceName string, p Parameters) (organisms.Config, error) {
	c := organisms.Config{Role: Role, InstanceName: instanceName}
	if n := len(p.Sources); n == 0 || n > MaxSources {
		return c, fmt.Errorf("%w: sources: %d, 1 to %d are possible", organisms.ErrConfig, n, MaxSources)
	}
	c.Parameters = binary.LittleEndian.AppendUint16(nil, uint16(len(p.Sources)))
	for _, id := range append(append([]identity.ID(nil), p.Sources...), p.Decider) {
		c.Parameters = append(c.Parameters, id[:]...)
	}
	return c, c.Validate()
}

// DecodeParameters decodes those of a config.
func DecodeParameters(b []byte) (p Parameters, err error) {
	if len(b) < 2 {
		return p, fmt.Errorf("%w: parameters: malformed", organisms.ErrConfig)
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n == 0 || n > MaxSources || len(b) != 2+(n+1)*identity.Size {
		return p, fmt.Errorf("%w: parameters: malformed", organisms.ErrConfig)
	}
	for i := range n {
		p.Sources = append(p.Sources, identity.ID(b[2+i*identity.Size:]))
	}
	p.Decider = identity.ID(b[2+n*identity.Size:])
	return p, nil
}

// has reports whether a step is about one of the sources.
func (p *Parameters) has(s *Step) bool {
	return s.Source < len(p.Sources) && s.At.Key == p.Sources[s.Source]
}

// Definition returns what an agent is made of.
func Definition() organisms.Definition {
	return organisms.Definition{Role: Role, Surface: []organisms.Primitive{{Name: Journal, Machine: machine{}}}}
}

// Step is what an agent has seen and what it was answered.
type Step struct {
	// Source is which of the parameters' sources it was seen in.
	Source int
	// Observed is the commit's body. The slice is shared, and not to be changed.
	Observed []byte
	// Answer is the decider's; empty: it has nothing to say. Likewise.
	Answer []byte
	// At points at what was observed.
	At log.Pointer
}

func (s *Step) body() []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(s.Source))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Observed)))
	return append(append(b, s.Observed...), s.Answer...)
}

// DecodeStep decodes a commit of a journal. The error wraps ErrStep.
func DecodeStep(c *organisms.Commit) (Step, error) {
	bad := func(what string) (Step, error) { return Step{}, fmt.Errorf("%w: %s", ErrStep, what) }
	b := c.Body
	if len(b) < 6 {
		return bad("it is too short")
	}
	size := binary.LittleEndian.Uint32(b[2:])
	switch {
	case size > MaxObserved || int(size) > len(b)-6:
		return bad("observed: its size is beyond the limit, or the end")
	case len(b)-6-int(size) > MaxAnswer:
		return bad("answer: it is beyond the limit")
	case len(c.Evidence) != 1 || c.Evidence[0].Pointer.Seq == 0:
		return bad("evidence: one pointer at a record is wanted")
	}
	return Step{Source: int(binary.LittleEndian.Uint16(b)), Observed: b[6 : 6+size], Answer: b[6+size:], At: c.Evidence[0].Pointer}, nil
}

const (
	resultRefused = 0
	resultTaken   = 1
)

func sourceRow(source int) []byte { return binary.BigEndian.AppendUint16([]byte{1}, uint16(source)) }

// machine folds a journal.
type machine struct{}

// Signature implements organisms.Machine.
func (machine) Signature() string { return "mosaik.agent.v1" }

// Apply implements organisms.Machine.
func (machine) Apply(tx *log.Tx, c *organisms.Commit) ([]byte, error) {
	p, err := DecodeParameters(c.Parameters)
	if err != nil {
		return []byte{resultRefused}, nil
	}
	s, err := DecodeStep(c)
	if err != nil || !p.has(&s) {
		return []byte{resultRefused}, nil
	}
	last, err := lastSeen(tx, s.Source)
	if err != nil {
		return nil, err
	}
	if s.At.Seq <= last {
		return []byte{resultRefused}, nil
	}
	return []byte{resultTaken}, tx.Set(sourceRow(s.Source), binary.LittleEndian.AppendUint64(nil, s.At.Seq))
}

// lastSeen returns the seq of the last record of a source that was observed; 0: none.
func lastSeen(v log.View, source int) (uint64, error) {
	row, ok, err := v.Get(sourceRow(source))
	if err != nil || !ok {
		return 0, err
	}
	if len(row.Value) != 8 {
		return 0, fmt.Errorf("%w: its row is malformed", ErrStep)
	}
	return binary.LittleEndian.Uint64(row.Value), nil
}

// Source is what an agent observes: a primitive of another organism.
type Source struct {
	// Surface is the organism's.
	Surface *organisms.Surface
	// Primitive is one of its surface.
	Primitive string
}

// Decider answers an observation. An empty answer says that there is nothing to do; it is
// recorded all the same. An error ends the agent, which asks again when it is started anew.
type Decider func(ctx context.Context, s Step) (answer []byte, err error)

// Run observes the sources, asks the decider and commits each step, until ctx ends, or all
// sources have retired. It goes on where the journal ends: what was observed and not committed
// is observed again, what was committed is not. report, if not nil, is told every step.
//
// The sources are those of the parameters in force, in their order, else the error wraps
// organisms.ErrConfig. organisms.ErrRefused says that another one runs the same agent;
// the error of the decider is returned as it is. Nil: ctx has ended, or the sources have.
func Run(ctx context.Context, o *organisms.Organism, sources []Source, decide Decider, report func(Step, log.Pointer)) error {
	b, err := o.Parameters(ctx, log.Linearizable())
	if err != nil {
		return err
	}
	p, err := DecodeParameters(b)
	if err != nil {
		return err
	}
	if len(sources) != len(p.Sources) {
		return fmt.Errorf("%w: sources: %d, the parameters have %d", organisms.ErrConfig, len(sources), len(p.Sources))
	}
	v, err := o.View(ctx, Journal, log.Linearizable())
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	r := runner{seen: make(chan seen)}
	for i, s := range sources {
		key, err := s.Surface.Key(s.Primitive)
		if err != nil {
			return err
		}
		if key != p.Sources[i] {
			return fmt.Errorf("%w: source %d: it is %s, the parameters have %s", organisms.ErrConfig, i, key.Short(), p.Sources[i].Short())
		}
		last, err := lastSeen(v, i)
		if err != nil {
			return err
		}
		running.Add(1)
		go r.runSource(reading, s, i, last, running.Done)
	}
	for left := len(sources); left > 0; {
		var got seen
		select {
		case got = <-r.seen:
		case <-ctx.Done():
			return nil
		}
		switch {
		case errors.Is(got.err, organisms.ErrRetired):
			left--
			continue
		case ctx.Err() != nil:
			return nil
		case got.err != nil:
			return fmt.Errorf("source %d: %w", got.step.Source, got.err)
		}
		if err := act(ctx, o, got.step, decide, report); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	return nil
}

// act decides on one observation and commits the step.
func act(ctx context.Context, o *organisms.Organism, s Step, decide Decider, report func(Step, log.Pointer)) (err error) {
	if s.Answer, err = decide(ctx, s); err != nil {
		return err
	}
	if len(s.Answer) > MaxAnswer {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrAnswer, len(s.Answer), MaxAnswer)
	}
	at, result, err := o.Commit(ctx, Journal, s.body(), organisms.At(s.At))
	if err != nil {
		return err
	}
	if len(result) != 1 || result[0] != resultTaken {
		return fmt.Errorf("%w: record %d of source %d was answered already: another one runs this agent", organisms.ErrRefused, s.At.Seq, s.Source)
	}
	if report != nil {
		report(s, at)
	}
	return nil
}

// runner reads the sources of an agent.
type runner struct{ seen chan seen }

// seen is an observation, or why there are no more of its source.
type seen struct {
	step Step
	err  error
}

// runSource reads one source. Commits that are too large to be observed are passed over.
func (r *runner) runSource(ctx context.Context, s Source, number int, last uint64, done func()) {
	defer done()
	send := func(got seen) bool {
		select {
		case r.seen <- got:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for e, err := range s.Surface.Commits(ctx, s.Primitive, log.Seq(last+1), true) {
		got := seen{Step{Source: number}, err}
		if err == nil {
			if len(e.Body) > MaxObserved {
				continue
			}
			got.step.Observed, got.step.At = append([]byte(nil), e.Body...), e.Pointer
		}
		if !send(got) || err != nil {
			return
		}
	}
}

// AuditReport says what an audit has looked at.
type AuditReport struct {
	Steps    uint64 // of the journal
	Answered uint64 // of them, with an answer that is not empty
}

// Audit holds every step of an agent against what it points at: read returns the commit
// that is there, as organisms.Surface.At does for the surface of its source. judge, if not
// nil, is a decider that gives the same answers to the same observations; what it would have
// answered is compared. The error wraps ErrStep and names the step and the pointer.
func Audit(ctx context.Context, s *organisms.Surface, read func(context.Context, log.Pointer) (organisms.Entry, error), judge Decider) (AuditReport, error) {
	var r AuditReport
	last := make(map[int]uint64)
	var p Parameters
	for e, err := range s.Commits(ctx, Journal, log.Earliest(), false) {
		if errors.Is(err, organisms.ErrRetired) {
			break
		}
		if err != nil {
			return r, err
		}
		step, err := DecodeStep(&e.Commit)
		if err != nil || step.At.Seq <= last[step.Source] {
			continue // its machine has refused it
		}
		if !p.has(&step) { // or it is of another revision
			b, err := s.Parameters(ctx, log.AsOf(e.Pointer.Commit))
			if err == nil {
				p, err = DecodeParameters(b)
			}
			if err != nil {
				return r, err
			}
			if !p.has(&step) {
				continue
			}
		}
		last[step.Source] = step.At.Seq
		bad := func(format string, args ...any) (AuditReport, error) {
			return r, fmt.Errorf("%w: step %s observes %s: "+format, append([]any{ErrStep, e.Pointer, step.At}, args...)...)
		}
		there, err := read(ctx, step.At)
		if err != nil {
			return bad("%w", err)
		}
		if string(there.Body) != string(step.Observed) {
			return bad("there are other bytes")
		}
		if judge != nil {
			asked := step
			asked.Answer = nil
			answer, err := judge(ctx, asked)
			if err != nil {
				return r, err
			}
			if string(answer) != string(step.Answer) {
				return bad("the answer does not follow from it")
			}
		}
		r.Steps++
		if len(step.Answer) > 0 {
			r.Answered++
		}
	}
	return r, nil
}
