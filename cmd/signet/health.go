package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// healthCommand is the health check of a container, which has no curl.
type healthCommand struct {
	URL      string        `name:"url" placeholder:"URL" help:"Where the server is. Default: made from the settings of the server, --listen and --tls-cert."`
	Timeout  time.Duration `name:"timeout" default:"4s" help:"How long to wait for its answer."`
	Insecure bool          `name:"insecure" help:"Do not verify the server's TLS certificate: it names the public host, not this address. Only for a loopback address, and the default there without --url."`

	Config
}

// Run asks /readyz once.
func (c *healthCommand) Run(in *invocation) error {
	u, err := c.server()
	if err != nil {
		return err
	}
	if c.Insecure && !isLoopback(u.Hostname()) {
		return usagef("--insecure is for a loopback address")
	}
	ctx, cancel := context.WithTimeout(in.ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("readyz").String(), nil)
	if err != nil {
		return usagef("--url: %w", err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: c.Insecure || c.URL == "" && isLoopback(u.Hostname())}}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask server: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	answer := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", response.Status, answer)
	}
	_, err = fmt.Fprintln(in.stdout, answer)
	return err
}

// server is where the server is: what --url says, else what the settings say.
func (c *healthCommand) server() (*url.URL, error) {
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil || u.Host == "" {
			return nil, usagef("--url %q is not a URL", c.URL)
		}
		return u, nil
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, usagef("--listen %q: %w", c.Listen, err)
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil || number == 0 {
		return nil, usagef("--listen %q does not say where the server is: --url does", c.Listen)
	}
	switch ip, err := netip.ParseAddr(host); {
	case host == "" || err == nil && ip.IsUnspecified() && ip.Unmap().Is4():
		host = "127.0.0.1"
	case err == nil && ip.IsUnspecified():
		host = "::1"
	}
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	return &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, fmt.Sprint(number))}, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
