package tdx_test

import (
	"crypto/sha512"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/fakertmr"
	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
)

// fakeGuest speaks the kernel's protocol over a simulated quoter.
func fakeGuest(t testing.TB, provider string, q quoter) *tdx.Guest {
	t.Helper()
	reports := faketsm.Report611(0)
	reports.ReadAttr = func(e *faketsm.ReportEntry, attr string) ([]byte, error) {
		switch attr {
		case "provider":
			return []byte(provider + "\n"), nil
		case "outblob":
			in := e.InAttrs["inblob"].Value
			if len(in) != 64 {
				return nil, syscall.EINVAL
			}
			return q.Quote([64]byte(in))
		}
		return nil, os.ErrNotExist
	}
	return tdx.NewGuest(&faketsm.Client{Subsystems: map[string]configfsi.Client{
		"report": reports, "rtmrs": fakertmr.CreateRtmrSubsystem(t.TempDir()),
	}})
}

func TestGuest(t *testing.T) {
	a := authority(t, 1)
	td := sample()
	g := fakeGuest(t, "tdx_guest", a.Quoter(td))
	if err := g.Available(); err != nil {
		t.Fatal(err)
	}
	ticket := sampleTicket(true)
	if err := ticket.Attest(g); err != nil {
		t.Fatal(err)
	}
	if _, err := tdx.Verify(ticket.Quote, a.Root(), collateral(t, a, fine()), tdx.At(now)); err != nil {
		t.Error(err)
	}
	if m, err := tdx.LocalMeasurements(g); err != nil || m != td.Measurements {
		t.Errorf("got %+v, %v", m, err)
	}
	digest := tdx.RuntimeDigest(identity.ID{1}, identity.ID{2}, identity.ID{3})
	if err := g.ExtendRTMR3(digest); err != nil {
		t.Error(err)
	}
	if got, want := new(tdx.Measurement).Extend(digest), sha512.Sum384(append(make([]byte, 48), digest[:]...)); got != want {
		t.Errorf("extended to %x, want %x", got, want)
	}
	if digest == tdx.RuntimeDigest(identity.ID{2}, identity.ID{1}, identity.ID{3}) {
		t.Error("the parts of the digest can be swapped")
	}
}

// TestGuestUnavailable: clear errors on machines without TDX, of which this may be one.
func TestGuestUnavailable(t *testing.T) {
	other := fakeGuest(t, "sev_guest", authority(t, 1).Quoter(sample()))
	if err := other.Available(); !errors.Is(err, tdx.ErrUnavailable) {
		t.Errorf("another provider: %v", err)
	}
	broken := errors.New("the host does not answer")
	failing := fakeGuest(t, "tdx_guest", &flaky{err: broken})
	if _, err := tdx.LocalMeasurements(failing); !errors.Is(err, tdx.ErrUnavailable) {
		t.Errorf("a host that does not answer: %v", err)
	}
	g, err := tdx.OpenGuest()
	if err == nil {
		err = g.Available()
	}
	if err != nil && !errors.Is(err, tdx.ErrUnavailable) {
		t.Errorf("here: %v", err)
	}
}
