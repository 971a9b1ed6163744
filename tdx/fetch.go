package tdx

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-tdx-guest/pcs"
)

// HTTPFetch returns a function that gets items over HTTP with a client, for
// [CacheOptions.Fetch]. With an empty base it asks Intel. Else base is the address of a
// private caching service (Intel's PCCS or one with its interface), such as
// "https://pccs.example:8081": scheme and host of Intel's URLs are replaced by it, and
// the root CRL is asked for as the PCCS offers it. What comes back is signed by Intel
// in any case.
func HTTPFetch(client *http.Client, base string) (func(ctx context.Context, url string) (Item, error), error) {
	var private *url.URL
	if base != "" {
		parsed, err := url.Parse(base)
		if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" || parsed.Host == "" || parsed.RawQuery != "" {
			return nil, fmt.Errorf("tdx: base URL %q of the collateral service: want http(s)://host[:port][/path]", base)
		}
		private = parsed
	}
	return func(ctx context.Context, intel string) (Item, error) {
		address, err := privateURL(private, intel)
		if err != nil {
			return Item{}, err
		}
		return getItem(ctx, client, intel, address)
	}, nil
}

// privateURL is where a private service has what Intel has at an address.
func privateURL(base *url.URL, intel string) (string, error) {
	if base == nil {
		return intel, nil
	}
	u, err := url.Parse(intel)
	if err != nil {
		return "", err
	}
	if intel == RootCRLURL {
		u.Path = "/sgx/certification/v4/rootcacrl"
	}
	u.Scheme, u.Host, u.User = base.Scheme, base.Host, base.User
	u.Path = strings.TrimSuffix(base.Path, "/") + u.Path
	return u.String(), nil
}

func getItem(ctx context.Context, client *http.Client, intel, address string) (Item, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return Item{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return Item{}, err
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	if response.StatusCode != http.StatusOK {
		return Item{}, fmt.Errorf("%s answers %s", address, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxItemSize+1))
	if err != nil {
		return Item{}, err
	}
	if len(body) > MaxItemSize {
		return Item{}, fmt.Errorf("%s answers more than %d bytes", address, MaxItemSize)
	}
	item := Item{URL: intel, Body: body}
	for _, header := range []string{pcs.TcbInfoIssuerChainPhrase, pcs.SgxQeIdentityIssuerChainPhrase, pcs.SgxPckCrlIssuerChainPhrase} {
		if chain := response.Header.Get(header); chain != "" {
			item.IssuerChain = chain
		}
	}
	if intel == RootCRLURL {
		// The PCCS answers this one in hexadecimal.
		if der, err := hex.DecodeString(strings.TrimSpace(string(body))); err == nil {
			item.Body = der
		}
	}
	return item, nil
}
