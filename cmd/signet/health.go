package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// healthCommand is the health check of a container, which has no curl.
type healthCommand struct {
	URL      string        `name:"url" default:"http://127.0.0.1:8000" placeholder:"URL" help:"Where the server is."`
	Timeout  time.Duration `name:"timeout" default:"4s" help:"How long to wait for its answer."`
	Insecure bool          `name:"insecure" help:"Do not verify the server's TLS certificate: it names the public host, not this address. Only for a loopback address."`
}

// Run asks /readyz once.
func (c *healthCommand) Run(in *invocation) error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return usagef("--url %q is not a URL", c.URL)
	}
	if c.Insecure && u.Hostname() != "localhost" && !strings.HasPrefix(u.Hostname(), "127.") && u.Hostname() != "::1" {
		return usagef("--insecure is for a loopback address")
	}
	ctx, cancel := context.WithTimeout(in.ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("readyz").String(), nil)
	if err != nil {
		return usagef("--url: %w", err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: c.Insecure}}}
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
