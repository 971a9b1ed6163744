package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// screen tells what happens while it happens. On a terminal its last line is
// drawn anew again and again; elsewhere it is printed once a second, as a line
// like the others. It is used by one goroutine.
type screen struct {
	w     io.Writer
	tty   *os.File // nil where lines cannot be drawn anew
	style style
	began time.Time
	drawn bool      // the last line on the terminal is a live one
	last  time.Time // when a line was last printed, or the live one drawn
}

func newScreen(w io.Writer) *screen {
	now := time.Now()
	s := &screen{w: w, style: styleOf(w), began: now, last: now}
	if f, ok := w.(*os.File); ok && os.Getenv("TERM") != "dumb" && terminalWidth(f) > 0 {
		s.tty = f
	}
	return s
}

// title prints what is going to happen.
func (s *screen) title(text string) {
	fmt.Fprintf(s.w, "%s\n\n", s.style.bold(text))
}

// step prints a line that stays: when, what, and the rest. A step without a verb
// goes on with the one before.
func (s *screen) step(verb, format string, args ...any) {
	s.clear()
	s.last = time.Now()
	when := fmt.Sprintf("%6.1fs", time.Since(s.began).Seconds())
	fmt.Fprintf(s.w, "%s  %s %s\n", s.style.dim(when), s.style.bold(fmt.Sprintf("%-8s", verb)), fmt.Sprintf(format, args...))
}

// live shows how far something is: the share that is done, -1 for unknown, and
// more in words. It may be called as often as one likes.
func (s *screen) live(share float64, text string) {
	now := time.Now()
	if s.tty == nil {
		if now.Sub(s.last) >= time.Second {
			s.step("", "%s", percent(share)+text)
		}
		return
	}
	if s.drawn && now.Sub(s.last) < redraw {
		return
	}
	s.last = now
	s.draw(fit(share, text, terminalWidth(s.tty)-1))
}

// note shows what is being waited for, where it can be taken away again.
func (s *screen) note(text string) {
	if s.tty != nil {
		s.draw(fit(-1, text, terminalWidth(s.tty)-1))
	}
}

// progress returns what shows how much of something is done, for work that can
// take long; done and total count what.
func (s *screen) progress(what string) func(done, total uint64) {
	return func(done, total uint64) {
		if done < total {
			s.live(float64(done)/float64(total), fmt.Sprintf("%d of %d %s", done, total, what))
		}
	}
}

// draw replaces the live line.
func (s *screen) draw(line string) {
	fmt.Fprintf(s.w, "\r%s\x1b[K", line)
	s.drawn = true
}

// clear removes the live line, so that what is printed next takes its place.
func (s *screen) clear() {
	if s.drawn {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.drawn = false
	}
}

// redraw is how often the live line changes at most.
const redraw = 80 * time.Millisecond

// Widths of the bar of a live line.
const (
	minBar = 8
	maxBar = 24
)

// fit lays a live line out in width columns: a bar where there is room for one,
// the percentage, and as much of the text as fits.
func fit(share float64, text string, width int) string {
	line := percent(share) + text
	if share >= 0 {
		bar := min(maxBar, width-utf8.RuneCountInString(line)-3)
		if bar >= minBar {
			full := int(share*float64(bar) + 0.5)
			line = " " + strings.Repeat("━", full) + strings.Repeat("─", bar-full) + " " + line
		}
	}
	if runes := []rune(line); len(runes) > width {
		line = string(runes[:max(width, 0)])
	}
	return line
}

// percent returns a share as text that something follows; nothing if it is
// unknown.
func percent(share float64) string {
	if share < 0 {
		return ""
	}
	return fmt.Sprintf("%3.0f%%  ", 100*share)
}

// style is how things are set off, if at all. No meaning is in it alone.
type style struct{ on bool }

// styleOf returns the style for a writer: none but on a terminal, and none where
// NO_COLOR (no-color.org) asks for none.
func styleOf(w io.Writer) style {
	f, ok := w.(*os.File)
	return style{on: ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && terminalWidth(f) > 0}
}

func (s style) set(code int, text string) string {
	if !s.on {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
}

func (s style) bold(text string) string  { return s.set(1, text) }
func (s style) dim(text string) string   { return s.set(2, text) }
func (s style) green(text string) string { return s.set(32, text) }
func (s style) red(text string) string   { return s.set(31, text) }

// table is lines of cells, the first line being the heads. Columns are as wide as
// they have to be; numbers are right-aligned.
type table [][]string

func (t table) print(b *strings.Builder, s style) {
	widths, right := make([]int, len(t[0])), make([]bool, len(t[0]))
	for y, line := range t {
		for x, cell := range line {
			widths[x] = max(widths[x], utf8.RuneCountInString(cell))
			right[x] = y == 0 || right[x] && isNumber(cell)
		}
	}
	for y, line := range t {
		text := " "
		for x, cell := range line {
			gap := strings.Repeat(" ", widths[x]-utf8.RuneCountInString(cell))
			if right[x] {
				cell = gap + cell
			} else {
				cell += gap
			}
			text += " " + cell + " "
		}
		text = strings.TrimRight(text, " ")
		if y == 0 {
			text = s.dim(text)
		}
		b.WriteString(text + "\n")
	}
}

// isNumber reports whether a cell holds what grouped returns.
func isNumber(cell string) bool {
	return cell != "" && strings.Trim(cell, "0123456789,") == ""
}

// grouped returns n with a comma between thousands.
func grouped(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// plural returns n things.
func plural[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return grouped(uint64(n)) + " " + thing + "s"
}

// millis returns a latency with what digits matter of it.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// seconds returns a duration as a person would say it.
func seconds(d time.Duration) string { return secondsOf(d.Seconds()) }

func secondsOf(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.2f s", s)
	}
	return fmt.Sprintf("%.1f s", s)
}

// kilobytes returns a size in decimal units.
func kilobytes(n uint64) string {
	if n < 1e6 {
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
