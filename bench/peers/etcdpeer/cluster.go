// Package etcdpeer measures etcd: three members in this process that reach each other over loopback
// TCP, with the server's defaults, reached by its clients over loopback TCP as services would reach
// them. It is what a replicated map is compared with.
//
// Goroutines beside those of the server and client libraries, all ended before Cluster.Run returns:
//
//	writers.runWriter  one client that puts keys
package etcdpeer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/mosaik-engine/mosaik/bench/peers/loopback"
)

// Name is the peer's name in the report; Config names its only configuration.
const (
	Name   = "etcd"
	Config = "default"
)

const (
	replicas     = 3
	startTimeout = 30 * time.Second
	dialTimeout  = 10 * time.Second
	portAttempts = 5
	pollEvery    = 20 * time.Millisecond
)

// Cluster is three running members and one client, which is connected to the member that leads.
type Cluster struct {
	dir     string
	members []*embed.Etcd
	leader  string // address for clients
	admin   *clientv3.Client
	filled  int // entries that get reads, 0 until they are written
}

// Open starts a cluster whose members keep their files below dir, and waits until it has a leader.
func Open(ctx context.Context, dir string) (*Cluster, error) {
	var errs error
	for attempt := range portAttempts {
		c := &Cluster{dir: filepath.Join(dir, strconv.Itoa(attempt))}
		err := c.start(ctx)
		if err == nil {
			return c, nil
		}
		// The ports were free when they were chosen, but somebody else can take one before the
		// member does; everything else fails again the same way.
		errs = errors.Join(errs, err, c.Close())
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("mosaik: start etcd cluster: %w", errs)
}

func (c *Cluster) start(ctx context.Context) error {
	ports, err := loopback.FreePorts(2 * replicas)
	if err != nil {
		return err
	}
	peers, clients := addresses(ports[:replicas]), addresses(ports[replicas:])
	initial := ""
	for i := range replicas {
		initial += "," + memberName(i) + "=" + peers[i].String()
	}
	for i := range replicas {
		m, err := embed.StartEtcd(c.config(i, initial[1:], peers[i], clients[i]))
		if err != nil {
			return fmt.Errorf("mosaik: etcd member %d: %w", i, err)
		}
		c.members = append(c.members, m)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for i, m := range c.members {
		select {
		case <-m.Server.ReadyNotify():
		case err := <-m.Err():
			return fmt.Errorf("mosaik: etcd member %d: %w", i, err)
		case <-ctx.Done():
			return fmt.Errorf("mosaik: etcd member %d is not ready: %w", i, ctx.Err())
		}
	}
	for i, m := range c.members {
		if m.Server.Leader() == m.Server.MemberID() {
			c.leader = clients[i].Host
		}
	}
	if c.leader == "" {
		return errors.New("mosaik: etcd cluster without a leader")
	}
	c.admin, err = c.connect()
	return err
}

// config is that of a member: the defaults, but for its addresses and that it keeps quiet.
func (c *Cluster) config(i int, initial string, peer, client url.URL) *embed.Config {
	config := embed.NewConfig()
	config.Name, config.Dir = memberName(i), filepath.Join(c.dir, strconv.Itoa(i))
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.InitialCluster, config.InitialClusterToken = initial, c.dir
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	return config
}

func memberName(i int) string { return "peer" + strconv.Itoa(i) }

func addresses(ports []int) []url.URL {
	var all []url.URL
	for _, port := range ports {
		all = append(all, url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
	}
	return all
}

// connect returns a client of the member that leads, which spares etcd a hop between members.
func (c *Cluster) connect() (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.leader}, DialTimeout: dialTimeout, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("mosaik: connect to etcd: %w", err)
	}
	return client, nil
}

// Close implements measure.Session: it disconnects and stops the members.
func (c *Cluster) Close() error {
	var err error
	if c.admin != nil {
		err = c.admin.Close()
		c.admin = nil
	}
	for _, m := range c.members {
		m.Close()
	}
	c.members = nil
	return err
}

// settle waits until every member has applied everything, and checks that the keys below prefix are
// those that were acknowledged: a rate with lost writes would not be one.
func (c *Cluster) settle(ctx context.Context, prefix string, keys int) error {
	found, err := c.admin.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	if found.Count != int64(keys) {
		return fmt.Errorf("mosaik: etcd holds %d keys, %d were acknowledged", found.Count, keys)
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for _, m := range c.members {
		for m.Server.KV().Rev() < found.Header.Revision {
			select {
			case <-ctx.Done():
				return fmt.Errorf("mosaik: etcd member behind: %w", ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}
