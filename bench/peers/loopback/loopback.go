// Package loopback finds addresses on this machine for servers that have to be told where to listen
// before they do.
package loopback

import (
	"errors"
	"fmt"
	"net"
)

// FreePorts returns n TCP ports of 127.0.0.1 that nobody listened on a moment ago. Somebody else can
// take one before the caller does.
func FreePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("mosaik: find a free port: %w", err)
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
