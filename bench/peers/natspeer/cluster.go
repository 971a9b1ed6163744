// Package natspeer measures NATS JetStream: three servers in this process, clustered over loopback
// TCP, file storage, reached by the nats.go client over loopback TCP as a service would reach them.
//
// Goroutines beside those of the server and client libraries, all ended before Cluster.Run returns:
//
//	pipeline.runCollector    waits for the acknowledgements of asynchronous publishes in order
//	callers.runWriter        one synchronous publisher of the writers64 workload
//	atomicBatches.runWriter  one publisher of atomic batches
package natspeer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mosaik-engine/mosaik/bench/peers/loopback"
)

// Name is the peer's name in the report.
const Name = "jetstream"

// Sync is the server's sync_interval setting.
type Sync string

const (
	// SyncDefault flushes to disk every two minutes: an acknowledged record can be lost when a
	// majority of the machines lose power together.
	SyncDefault Sync = "default"
	// SyncAlways flushes before the acknowledgement, on a quorum.
	SyncAlways Sync = "always"
)

// Durable reports whether an acknowledgement means that a quorum has called fsync.
func (s Sync) Durable() bool { return s == SyncAlways }

const (
	replicas     = 3
	syncEvery    = 2 * time.Minute // the server's default
	startTimeout = 30 * time.Second
	portAttempts = 5
	pollEvery    = 20 * time.Millisecond
	maxStore     = 1 << 40 // bytes a server may keep; far above what a run writes
)

// Cluster is three running servers and one client connection to the first of them.
type Cluster struct {
	dir     string
	servers []*server.Server
	admin   *nats.Conn
	filled  map[int]stream // by number of replicas: the streams that replay, seek and disk share
}

// Open starts a cluster whose servers keep their files below dir, and waits until JetStream accepts
// streams.
func Open(ctx context.Context, dir string, sync Sync) (*Cluster, error) {
	var errs error
	for attempt := range portAttempts {
		c := &Cluster{dir: filepath.Join(dir, strconv.Itoa(attempt)), filled: make(map[int]stream)}
		err := c.start(ctx, sync)
		if err == nil {
			return c, nil
		}
		// The ports were free when they were chosen, but somebody else can take one before the
		// server does; everything else fails again the same way.
		errs = errors.Join(errs, err, c.Close())
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("mosaik: start JetStream cluster: %w", errs)
}

func (c *Cluster) start(ctx context.Context, sync Sync) error {
	ports, err := loopback.FreePorts(replicas)
	if err != nil {
		return err
	}
	var routes []*url.URL
	for _, port := range ports {
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
	}
	for i, port := range ports {
		s, err := server.NewServer(&server.Options{
			ServerName:         "peer" + strconv.Itoa(i),
			Host:               "127.0.0.1",
			Port:               server.RANDOM_PORT,
			Cluster:            server.ClusterOpts{Name: "peers", Host: "127.0.0.1", Port: port},
			Routes:             routes,
			JetStream:          true,
			StoreDir:           c.serverDir(i),
			JetStreamMaxMemory: 1 << 30,
			JetStreamMaxStore:  maxStore,
			SyncAlways:         sync == SyncAlways,
			SyncInterval:       syncEvery,
			NoLog:              true,
			NoSigs:             true,
		})
		if err != nil {
			return err
		}
		c.servers = append(c.servers, s)
		s.Start() // returns when the listeners are up; its goroutines end at Shutdown
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := poll(ctx, "cluster without a leader", c.ready); err != nil {
		return err
	}
	c.admin, err = c.connect(c.servers[0])
	return err
}

// ready reports whether all servers accept clients and have caught up with an elected meta leader
// that knows all of them.
func (c *Cluster) ready() (bool, error) {
	leaders := 0
	for _, s := range c.servers {
		if !s.Running() {
			return false, errors.New("mosaik: server stopped while starting")
		}
		if !s.ReadyForConnections(pollEvery) || !s.JetStreamIsCurrent() {
			return false, nil
		}
		if s.JetStreamIsLeader() {
			leaders += len(s.JetStreamClusterPeers())
		}
	}
	return leaders == replicas, nil
}

func (c *Cluster) serverDir(i int) string { return filepath.Join(c.dir, strconv.Itoa(i)) }

// Close implements measure.Session: it disconnects, stops the servers and waits for their
// goroutines. Calling it again does nothing.
func (c *Cluster) Close() error {
	if c.admin != nil {
		c.admin.Close()
		c.admin = nil
	}
	for _, s := range c.servers {
		s.Shutdown()
	}
	for _, s := range c.servers {
		s.WaitForShutdown()
	}
	c.servers = nil
	return nil
}

func (c *Cluster) connect(s *server.Server) (*nats.Conn, error) {
	nc, err := nats.Connect(s.ClientURL(), nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("mosaik: connect to %s: %w", s.Name(), err)
	}
	return nc, nil
}

// stream is one stream and what a workload needs to use it.
type stream struct {
	name    string
	records int // acknowledged when it was filled
}

// subject is the i-th subject of the stream.
func (s stream) subject(i int) string { return s.name + "." + strconv.Itoa(i) }

// create makes an empty file stream. asyncPersist opts a single-replica stream out of
// sync_interval: always; it is used only to fill streams that are then read.
func (c *Cluster) create(ctx context.Context, name string, copies int, asyncPersist bool) (stream, error) {
	if c.admin == nil {
		return stream{}, errors.New("mosaik: cluster is closed")
	}
	js, err := jetstream.New(c.admin)
	if err != nil {
		return stream{}, err
	}
	config := jetstream.StreamConfig{
		Name:               name,
		Subjects:           []string{name + ".*"},
		Storage:            jetstream.FileStorage,
		Replicas:           copies,
		AllowDirect:        true,
		AllowAtomicPublish: !asyncPersist,
		AllowBatchPublish:  !asyncPersist,
	}
	if asyncPersist {
		config.PersistMode = jetstream.AsyncPersistMode
	}
	if _, err := js.CreateStream(ctx, config); err != nil {
		return stream{}, fmt.Errorf("mosaik: create stream %s: %w", name, err)
	}
	return stream{name: name}, nil
}

// client connects to the server that leads the stream, which spares the peer a hop between servers.
func (c *Cluster) client(ctx context.Context, st stream, opts ...jetstream.JetStreamOpt) (*nats.Conn, jetstream.JetStream, error) {
	leader := c.servers[0]
	err := poll(ctx, "stream without a leader", func() (bool, error) {
		info, err := c.info(ctx, st)
		if err != nil {
			return false, err
		}
		for _, s := range c.servers {
			if info.Cluster != nil && s.Name() == info.Cluster.Leader {
				leader = s
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, nil, err
	}
	nc, err := c.connect(leader)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, opts...)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

func (c *Cluster) info(ctx context.Context, st stream) (*jetstream.StreamInfo, error) {
	js, err := jetstream.New(c.admin)
	if err != nil {
		return nil, err
	}
	handle, err := js.Stream(ctx, st.name)
	if err != nil {
		return nil, fmt.Errorf("mosaik: stream %s: %w", st.name, err)
	}
	return handle.CachedInfo(), nil
}

// settle waits until every replica has applied everything, and checks that the stream holds exactly
// the records acknowledged: a rate with lost or repeated records would not be one.
func (c *Cluster) settle(ctx context.Context, st stream, records int) error {
	err := poll(ctx, "replicas behind", func() (bool, error) {
		info, err := c.info(ctx, st)
		if err != nil {
			return false, err
		}
		for _, peer := range info.Cluster.Replicas {
			if !peer.Current || peer.Lag > 0 {
				return false, nil
			}
		}
		return info.State.Msgs >= uint64(records), nil
	})
	if err != nil {
		return err
	}
	info, err := c.info(ctx, st)
	if err != nil {
		return err
	}
	if info.State.Msgs != uint64(records) {
		return fmt.Errorf("mosaik: stream %s holds %d records, %d were acknowledged", st.name, info.State.Msgs, records)
	}
	return nil
}

func (c *Cluster) remove(ctx context.Context, st stream) error {
	js, err := jetstream.New(c.admin)
	if err != nil {
		return err
	}
	if err := js.DeleteStream(ctx, st.name); err != nil {
		return fmt.Errorf("mosaik: delete stream %s: %w", st.name, err)
	}
	return nil
}

// poll calls done until it returns true or an error, or the context ends; waiting says what for.
func poll(ctx context.Context, waiting string, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("mosaik: %s: %w", waiting, ctx.Err())
		case <-tick.C:
		}
	}
}

// recordBytes adds up the files of a stream on all servers. The cluster must be closed: until then a
// server may hold records that it has not written to a file.
func (c *Cluster) recordBytes(st stream) (int64, error) {
	return c.sizes("$G", "streams", st.name)
}

// logBytes adds up the Raft logs of all streams on all servers, without the cluster's own. The
// cluster must be running: a server that stops compacts its logs to almost nothing.
func (c *Cluster) logBytes() (int64, error) {
	all, err := c.sizes("$SYS", "_js_")
	if err != nil {
		return 0, err
	}
	meta, err := c.sizes("$SYS", "_js_", "_meta_")
	return max(0, all-meta), err
}

// sizes adds up the files below one directory of every server. Files that disappear meanwhile do not
// count.
func (c *Cluster) sizes(below ...string) (int64, error) {
	var total int64
	for i := range replicas {
		root := filepath.Join(append([]string{c.serverDir(i), "jetstream"}, below...)...)
		err := filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			total += info.Size()
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("mosaik: size of %s: %w", root, err)
		}
	}
	return total, nil
}
