package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"time"
)

// Process returns a decider that runs a program for every observation: it gets the observed
// bytes on its standard input, and what it writes to its standard output is the answer. It has
// to end within the timeout. The error wraps ErrAnswer, with the beginning of what the
// program says on its standard error.
func Process(timeout time.Duration, name string, args ...string) Decider {
	return func(ctx context.Context, s Step) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.WaitDelay = time.Second // a child of the program may hold the pipes
		cmd.Stdin = bytes.NewReader(s.Observed)
		out, errOut := limited{limit: MaxAnswer}, limited{limit: maxComplaint}
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%w: %s: %w: %s", ErrAnswer, name, errors.Join(err, ctx.Err()), errOut.b)
		}
		if out.over {
			return nil, fmt.Errorf("%w: %s: more than %d bytes", ErrAnswer, name, MaxAnswer)
		}
		return out.b, nil
	}
}

// maxComplaint bounds what is quoted of what a decider says when it fails.
const maxComplaint = 1 << 10

// limited keeps the first bytes that are written.
type limited struct {
	b     []byte
	limit int
	over  bool // there were more
}

// Write implements io.Writer.
func (l *limited) Write(b []byte) (int, error) {
	room := l.limit - len(l.b)
	l.over = l.over || len(b) > room
	l.b = append(l.b, b[:min(len(b), room)]...)
	return len(b), nil
}

// Model is a model behind an HTTP API of the form that OpenAI has made common: POST
// BaseURL/chat/completions.
type Model struct {
	// BaseURL is the API's, such as https://host/v1.
	BaseURL string
	// Name is the model's.
	Name string
	// Prompt is the system's message; what was observed is the user's, as text.
	Prompt string
	// Token, if not empty, is sent as the bearer's.
	Token string
	// Client is used for requests. Its Timeout bounds each. Nil: one with a minute.
	Client *http.Client
}

// Decider returns the decider: its answer is the content of the first choice. The error
// wraps ErrAnswer.
func (m Model) Decider() Decider {
	client := m.Client
	if client == nil {
		client = &http.Client{Timeout: time.Minute}
	}
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	return func(ctx context.Context, s Step) ([]byte, error) {
		bad := func(format string, args ...any) ([]byte, error) {
			return nil, fmt.Errorf("%w: %s: "+format, append([]any{ErrAnswer, m.Name}, args...)...)
		}
		body, err := json.Marshal(map[string]any{"model": m.Name, "messages": []message{{"system", m.Prompt}, {"user", string(s.Observed)}}})
		if err != nil {
			return bad("%w", err)
		}
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, m.BaseURL+"/chat/completions", bytes.NewReader(body))
		if err != nil {
			return bad("%w", err)
		}
		q.Header.Set("Content-Type", "application/json")
		if m.Token != "" {
			q.Header.Set("Authorization", "Bearer "+m.Token)
		}
		resp, err := client.Do(q)
		if err != nil {
			return bad("%w", err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
		switch {
		case err != nil:
			return bad("%w", err)
		case resp.StatusCode != http.StatusOK:
			return bad("it answers %s: %s", resp.Status, text[:min(len(text), maxComplaint)])
		case len(text) > maxResponse:
			return bad("its answer has more than %d bytes", maxResponse)
		}
		var answer struct {
			Choices []struct {
				Message message `json:"message"`
			} `json:"choices"`
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return bad("%w", err)
		}
		if len(answer.Choices) == 0 {
			return bad("it answers without a choice")
		}
		content := answer.Choices[0].Message.Content
		if len(content) > MaxAnswer {
			return bad("the content has %d bytes, the limit is %d", len(content), MaxAnswer)
		}
		return []byte(content), nil
	}
}

// maxResponse bounds a response of a model, in bytes.
const maxResponse = 1 << 20
