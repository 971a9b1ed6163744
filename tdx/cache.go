package tdx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// CacheOptions configure a [Cache].
type CacheOptions struct {
	// Root is the root that collateral must be signed under.
	Root Root

	// Fetch gets one item by Intel's URL; see [HTTPFetch]. Nil: nothing is fetched, as
	// in a closed network, and collateral comes by Import alone.
	Fetch func(ctx context.Context, url string) (Item, error)

	// Dir keeps the collateral over restarts, one bundle per kind of platform. It must
	// exist. Empty: memory only, and the protection against older collateral begins
	// anew with each start.
	Dir string

	// Timeout bounds the fetch of one kind of platform. Default: 30 s.
	Timeout time.Duration

	// Logger is told of refreshes that fail. Nil: nobody is.
	Logger *slog.Logger
}

// MaxPlatforms is the largest number of kinds of platform in a [Cache]. A kind gets in
// by a quote that is signed under the root, or by Import.
const MaxPlatforms = 256

// refreshEvery and refreshShare: collateral is fetched anew at this age, or when this
// part of its validity is over if that is earlier.
const (
	refreshEvery = 24 * time.Hour
	refreshShare = 2
	refreshRetry = 5 * time.Minute
)

// ErrCacheClosed is the error of a [Cache] after Close.
var ErrCacheClosed = errors.New("tdx: collateral cache is closed")

// Cache keeps collateral, by kind of platform. It fetches what is missing once for
// all who ask, and anew well before it expires; what has expired is not handed out,
// whatever the network does. An evaluation number or CRL number never goes back:
// collateral that would lower one is refused, so a network that is in somebody's
// hands cannot bring back the time before a revocation.
//
// Invariant: everything in entries was authentic when it came in.
type Cache struct {
	opts   CacheOptions
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu struct {
		sync.Mutex
		entries map[string]*cached // by FMSPC
		floors  map[string]uint64  // by URL: the highest number seen
		flights map[string]*flight // by FMSPC
	}
}

type cached struct {
	collateral *Collateral
	refreshAt  time.Time
}

// flight is a fetch that is under way. collateral and err are set before done closes.
type flight struct {
	done       chan struct{}
	collateral *Collateral
	err        error
}

// OpenCache opens a cache with what is in its directory. A file there that is not
// authentic collateral is an error that names it; one that has expired is kept for
// its numbers alone. Close the cache after use.
func OpenCache(opts CacheOptions) (*Cache, error) {
	if opts.Root.certificate == nil {
		return nil, errNoRoot
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 30 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{opts: opts}
	c.mu.entries, c.mu.floors, c.mu.flights = map[string]*cached{}, map[string]uint64{}, map[string]*flight{}
	if err := c.load(); err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if opts.Fetch != nil {
		c.done.Add(1)
		go c.runRefresh()
	}
	return c, nil
}

// Close ends fetches that are under way and waits for the cache's goroutines. Close
// once; afterwards Collateral and Import return [ErrCacheClosed].
func (c *Cache) Close() error {
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.done.Wait()
	return nil
}

// Root is the root that the cache's collateral is signed under.
func (c *Cache) Root() Root { return c.opts.Root }

// Cached returns the collateral that is at hand for a kind of platform and has not
// expired at a time, or nil.
func (c *Cache) Cached(fmspc string, now time.Time) *Collateral {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.mu.entries[fmspc]; e != nil && !now.After(e.collateral.summary.NextUpdate) {
		return e.collateral
	}
	return nil
}

// Collateral returns valid collateral for a kind of platform, 12 lower-case hex
// digits, and fetches it if there is none. Call it for platforms that exist: for a
// quote whose signatures are checked. The error wraps [ErrCollateral],
// [ErrCacheClosed] or ctx's.
func (c *Cache) Collateral(ctx context.Context, fmspc string) (*Collateral, error) {
	if c.ctx.Err() != nil {
		return nil, ErrCacheClosed
	}
	if have := c.Cached(fmspc, time.Now()); have != nil {
		return have, nil
	}
	if c.opts.Fetch == nil {
		return nil, fmt.Errorf("%w: none for platform %s, and this node fetches none; import a bundle", ErrCollateral, fmspc)
	}
	f := c.join(fmspc)
	select {
	case <-f.done:
		return f.collateral, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Prefetch starts to fetch collateral for a kind of platform if none is at hand and none
// is on its way, and does not wait for it.
func (c *Cache) Prefetch(fmspc string) {
	if c.opts.Fetch != nil && c.Cached(fmspc, time.Now()) == nil {
		c.join(fmspc)
	}
}

// Import takes over collateral that came from elsewhere, if it is authentic, valid,
// and not older than what was seen. The error wraps [ErrCollateral].
func (c *Cache) Import(collateral *Collateral) error {
	if c.ctx.Err() != nil {
		return ErrCacheClosed
	}
	now := time.Now()
	if err := collateral.Authentic(c.opts.Root, now); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store(collateral, now)
}

// join starts a fetch, or joins the one that is under way.
func (c *Cache) join(fmspc string) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.mu.flights[fmspc]; f != nil {
		return f
	}
	f := &flight{done: make(chan struct{})}
	if c.ctx.Err() != nil { // under mu, as Close cancels: no fetch starts while Close waits
		f.err = ErrCacheClosed
		close(f.done)
		return f
	}
	c.mu.flights[fmspc] = f
	c.done.Add(1)
	go c.runFetch(fmspc, f)
	return f
}

// runFetch fetches for all who joined f. It outlives the caller who started it, so
// that one who gives up takes nothing from the others.
func (c *Cache) runFetch(fmspc string, f *flight) {
	defer c.done.Done()
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
	defer cancel()
	f.collateral, f.err = c.fetch(ctx, fmspc)
	c.mu.Lock()
	delete(c.mu.flights, fmspc)
	c.mu.Unlock()
	close(f.done)
}

func (c *Cache) fetch(ctx context.Context, fmspc string) (*Collateral, error) {
	var items [4]Item
	for i, url := range collateralURLs(fmspc) {
		item, err := c.opts.Fetch(ctx, url)
		if err != nil {
			return nil, fmt.Errorf("%w: fetch %s: %w", ErrCollateral, url, err)
		}
		item.URL = url
		items[i] = item
	}
	fresh, err := NewCollateral(items[0], items[1], items[2], items[3])
	if err != nil {
		return nil, err
	}
	if fresh.FMSPC() != fmspc {
		return nil, fmt.Errorf("%w: asked for platform %s, the answer is for %s", ErrCollateral, fmspc, fresh.FMSPC())
	}
	if err := c.Import(fresh); err != nil {
		return nil, err
	}
	return fresh, nil
}

// store makes collateral the current one of its kind. REQUIRES: mu, authentic.
func (c *Cache) store(fresh *Collateral, now time.Time) error {
	fmspc := fresh.FMSPC()
	if _, known := c.mu.entries[fmspc]; !known && len(c.mu.entries) >= MaxPlatforms {
		return fmt.Errorf("%w: %d kinds of platform, the limit", ErrCollateral, MaxPlatforms)
	}
	numbers := fresh.numbers()
	for url, number := range numbers {
		if floor := c.mu.floors[url]; number < floor {
			return fmt.Errorf("%w: %s has number %d, and %d was seen before", ErrCollateral, url, number, floor)
		}
	}
	if e := c.mu.entries[fmspc]; e != nil && fresh.summary.Issued.Before(e.collateral.summary.Issued) {
		return fmt.Errorf("%w: for platform %s it was issued at %s, before what is here", ErrCollateral, fmspc, fresh.summary.Issued.Format(time.RFC3339))
	}
	if err := c.save(fresh); err != nil {
		return err
	}
	maps.Copy(c.mu.floors, numbers)
	age := min(refreshEvery, fresh.summary.NextUpdate.Sub(now)/refreshShare)
	c.mu.entries[fmspc] = &cached{collateral: fresh, refreshAt: now.Add(age)}
	return nil
}

// numbers are the numbers that must not go back, by URL.
func (c *Collateral) numbers() map[string]uint64 {
	urls := collateralURLs(c.FMSPC())
	return map[string]uint64{
		urls[0]: uint64(max(0, c.info.TcbEvaluationDataNumber)), urls[1]: uint64(max(0, c.qe.TcbEvaluationDataNumber)),
		urls[2]: c.summary.PCKCRLNumber, urls[3]: c.summary.RootCRLNumber,
	}
}

// runRefresh fetches collateral anew when it is due. A failure is logged and tried
// again; until it expires the old one stays in use.
func (c *Cache) runRefresh() {
	defer c.done.Done()
	tick := time.NewTicker(refreshRetry)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case now := <-tick.C:
			for _, fmspc := range c.due(now) {
				f := c.join(fmspc)
				<-f.done
				if f.err != nil && c.ctx.Err() == nil {
					c.opts.Logger.Warn("collateral was not refreshed", "fmspc", fmspc, "err", f.err)
				}
			}
		}
	}
}

func (c *Cache) due(now time.Time) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []string
	for fmspc, e := range c.mu.entries {
		if !now.Before(e.refreshAt) {
			due = append(due, fmspc)
		}
	}
	slices.Sort(due)
	return due
}

const bundleSuffix = ".collateral.json"

// load reads the directory. Only OpenCache calls it.
func (c *Cache) load() error {
	if c.opts.Dir == "" {
		return nil
	}
	files, err := os.ReadDir(c.opts.Dir)
	if err != nil {
		return fmt.Errorf("tdx: collateral cache: %w", err)
	}
	now := time.Now()
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), bundleSuffix) || !file.Type().IsRegular() {
			continue
		}
		path := filepath.Join(c.opts.Dir, file.Name())
		kept, err := loadBundle(path, c.opts.Root)
		if err != nil {
			return fmt.Errorf("tdx: collateral cache: %s: %w; remove the file to fetch it anew", path, err)
		}
		c.mu.entries[kept.FMSPC()] = &cached{collateral: kept, refreshAt: now}
		for url, number := range kept.numbers() {
			c.mu.floors[url] = max(c.mu.floors[url], number)
		}
	}
	return nil
}

// loadBundle reads a bundle that was authentic when it was issued.
func loadBundle(path string, root Root) (*Collateral, error) {
	bundle, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	kept, err := DecodeCollateral(bundle)
	if err != nil {
		return nil, err
	}
	return kept, kept.Authentic(root, kept.summary.Issued)
}

// save writes a bundle, whole or not at all. REQUIRES: mu, so that files are written
// in the order of their numbers.
func (c *Cache) save(fresh *Collateral) error {
	if c.opts.Dir == "" {
		return nil
	}
	bundle, err := fresh.Encode()
	if err != nil {
		return err
	}
	path := filepath.Join(c.opts.Dir, fresh.FMSPC()+bundleSuffix)
	if err := replaceFile(path, bundle); err != nil {
		return fmt.Errorf("tdx: collateral cache: %w", err)
	}
	return nil
}

// replaceFile writes data beside path, syncs it and moves it there.
func replaceFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".collateral-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if gone := os.Remove(f.Name()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
