package tdx_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mosaik-engine/mosaik/tdx"
)

// table returns the rows of the first table below a heading of docs/format/tdx.md.
func table(t *testing.T, heading string) [][]string {
	t.Helper()
	b, err := os.ReadFile("../docs/format/tdx.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the document has no %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	text = strings.ReplaceAll(text, `\|`, "or")
	var rows [][]string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			if rows != nil {
				break
			}
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(cell), "`"))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s has no table", heading)
	}
	return rows[2:]
}

// fields compares a table of fields, which lie without a gap, with encoded bytes, and
// returns how many of these they are.
func fields(t *testing.T, heading string, encoded []byte, want map[string][]byte) int {
	t.Helper()
	end := 0
	for _, row := range table(t, heading) {
		offset, err1 := strconv.Atoi(row[0])
		size, err2 := strconv.Atoi(row[1])
		if err1 != nil || err2 != nil || offset != end {
			t.Fatalf("%s: field %s is at %s, want %d", heading, row[2], row[0], end)
		}
		end += size
		if value, known := want[row[2]]; !known || !bytes.Equal(encoded[offset:end], value) {
			t.Errorf("%s: field %s is %x, want %x (known: %v)", heading, row[2], encoded[offset:end], value, known)
		}
		delete(want, row[2])
	}
	if len(want) > 0 {
		t.Errorf("%s: the document lacks %v", heading, want)
	}
	return end
}

func TestDocumentedFormats(t *testing.T) {
	values := map[string]string{
		"largest quote": strconv.Itoa(tdx.MaxQuoteSize), "largest ticket": strconv.Itoa(tdx.MaxTicketSize),
		"largest content of a v1 ticket": strconv.Itoa(tdx.MaxTicketContent), "largest item of collateral": strconv.Itoa(tdx.MaxItemSize),
		"largest admission record": strconv.Itoa(tdx.MaxRecordSize),
		"class of v1 tickets":      tdx.TicketClass().String(), "class of v2 tickets": tdx.TicketClassV2().String(),
	}
	for _, row := range table(t, "Limits and names") {
		if values[row[0]] != row[1] {
			t.Errorf("%s is %s, the document says %s", row[0], values[row[0]], row[1])
		}
		delete(values, row[0])
	}
	if len(values) > 0 {
		t.Errorf("the document lacks %v", values)
	}
	for i, row := range table(t, "Statuses") {
		if row[0] != strconv.Itoa(i) || row[1] != tdx.Status(i).String() {
			t.Errorf("status %d is %v, the document says %v", i, tdx.Status(i), row)
		}
	}

	ticket, data := ticketOf(t, authority(t, 1).Quoter(sample()), sampleTicket(true))
	end := fields(t, "Ticket, class v2", data, map[string][]byte{
		"peer": ticket.Peer[:], "network": ticket.Network[:], "group": ticket.Group[:],
		"started at": le64(ticket.StartedAt.UnixMilli()), "quoted at": le64(ticket.QuotedAt.UnixMilli()), "expires": le64(ticket.Expires.UnixMilli()),
		"challenge": ticket.Challenge[:], "keys": ticket.Keys[:],
	})
	if !bytes.Equal(data[end:], ticket.Quote) {
		t.Error("what follows the fields is not the quote")
	}

	synctest.Test(t, func(t *testing.T) {
		a, _, _ := admission(t)
		data, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		m := &a.Claims.Measurements
		end := fields(t, "Admission record", data, map[string][]byte{
			"magic": []byte("mosaik/tdx/admit"), "version": {1}, "subject": a.Subject[:],
			"entry version": slices.Concat(le64(int64(a.EntryVersion[0])), le64(int64(a.EntryVersion[1]))),
			"group":         a.Group[:], "epoch": le64(int64(a.Epoch)), "challenge": a.Challenge[:], "class": a.Class[:],
			"evidence": a.Evidence[:], "raw": a.Raw[:], "root": a.Claims.Root[:], "simulated": {1},
			"measurements": slices.Concat(m.MRTD[:], m.RTMR[0][:], m.RTMR[1][:], m.RTMR[2][:], m.RTMR[3][:], m.MRConfigID[:], m.MROwner[:], m.MROwnerConfig[:]),
			"mrseam":       a.Claims.MRSEAM[:], "attributes": le64(int64(a.Claims.Attributes)), "xfam": le64(int64(a.Claims.XFAM)),
			"statuses":          {byte(a.Claims.TCB.Platform), byte(a.Claims.TCB.Module), byte(a.Claims.TCB.QE)},
			"evaluation number": binary.LittleEndian.AppendUint32(nil, a.Claims.TCB.EvaluationNumber), "advisories": {2, 0},
		})
		rest := slices.Concat([]byte("\x0aINTEL-SA-1\x0aINTEL-SA-2\x0c"+a.Claims.FMSPC), a.Claims.PCK[:], a.TEETCBSVN[:],
			[]byte{byte(len(a.PCKSerial))}, []byte(a.PCKSerial), a.TCBInfo[:], a.QEIdentity[:],
			le64(int64(a.PCKCRLNumber)), le64(int64(a.RootCRLNumber)), le64(a.VerifiedAt.UnixMilli()), le64(a.NotAfter.UnixMilli()),
			a.Policy[:], le64(int64(a.PolicyVersion)), a.Verifier[:], a.Signature[:])
		if !bytes.Equal(data[end:], rest) {
			t.Errorf("after the fields comes %x, want %x", data[end:], rest)
		}
	})
}
