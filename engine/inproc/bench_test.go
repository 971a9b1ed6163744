package inproc

import (
	"fmt"
	"testing"

	"github.com/lni/dragonboat/v4/config"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// BenchmarkSend sends one message with 64 KiB of payload per operation and waits
// for the last to be handled.
func BenchmarkSend(b *testing.B) {
	for _, entries := range []int{1, 64} {
		for _, faulty := range []bool{false, true} {
			b.Run(fmt.Sprintf("entries=%d/faulty=%v", entries, faulty), func(b *testing.B) {
				const payload = 64 << 10
				n := New(Options{})
				if faulty {
					n.SetFault(Fault{Drop: 1e-9}) // the path, without the losses
				}
				from := n.Transport("a").Create(config.NodeHostConfig{RaftAddress: "a"}, func(pb.MessageBatch) {}, nil)
				last := make(chan struct{})
				to := n.Transport("b").Create(config.NodeHostConfig{RaftAddress: "b"}, func(m pb.MessageBatch) {
					if m.Requests[0].Type == pb.Quiesce {
						close(last)
					}
				}, nil)
				for _, t := range []interface{ Start() error }{from, to} {
					if err := t.Start(); err != nil {
						b.Fatal(err)
					}
				}
				defer from.Close()
				defer to.Close()
				c, err := from.GetConnection(b.Context(), "b")
				if err != nil {
					b.Fatal(err)
				}
				message := pb.Message{Type: pb.Replicate}
				for i := range entries {
					message.Entries = append(message.Entries, pb.Entry{Index: uint64(i), Cmd: make([]byte, payload/entries)})
				}
				batch := pb.MessageBatch{Requests: []pb.Message{message}}
				b.SetBytes(payload)
				b.ReportAllocs()
				for b.Loop() {
					if err := c.SendMessageBatch(batch); err != nil {
						b.Fatal(err)
					}
				}
				if err := c.SendMessageBatch(pb.MessageBatch{Requests: []pb.Message{{Type: pb.Quiesce}}}); err != nil {
					b.Fatal(err)
				}
				<-last
			})
		}
	}
}
