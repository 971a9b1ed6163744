package loopback_test

import (
	"net"
	"slices"
	"strconv"
	"testing"

	"github.com/mosaik-engine/mosaik/bench/peers/loopback"
)

func TestFreePortsAreFreeAndDiffer(t *testing.T) {
	ports, err := loopback.FreePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	slices.Sort(ports)
	if len(slices.Compact(ports)) != 6 {
		t.Errorf("a port was returned twice: %v", ports)
	}
}
