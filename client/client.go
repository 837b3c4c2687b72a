// Package client is a Go client of Signet's API. It needs neither cgo nor a database driver.
//
// A client logs in once and keeps its session alive with the refresh token. Calls that create something are sent again when the
// server does not answer, or cannot do them now, and create one thing all the same. It is safe for concurrent use.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"signet/api/wire"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml -o client.gen.go ../api/openapi.yaml

// maxAnswer is the longest answer that is read; a page of 10,000 certificates stays below.
const maxAnswer = 64 << 20

// Client speaks to one server as one user.
type Client struct {
	base string
	http *http.Client

	mu     sync.Mutex
	tokens wire.Tokens // zero: not logged in
}

// New returns a client of the server at baseURL, such as https://pki.example. A nil httpClient means
// [http.DefaultClient].
func New(baseURL string, httpClient *http.Client) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("parse base URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("base URL %q is not an absolute http or https URL", baseURL)
	}
	if httpClient == nil {
		httpClient = http.DefaultClient
	}
	return &Client{base: strings.TrimRight(baseURL, "/"), http: httpClient}, nil
}

// Error is a refusal of the server.
type Error struct {
	Status int    // HTTP status
	Detail string // the server's reason; for a malformed request, every problem in one line
	Fields []wire.FieldProblem

	// RetryAfter is when the same request is worth sending again, if the server said so.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Status, http.StatusText(e.Status), e.Detail)
}

// IsStatus reports whether err is a refusal with this status.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// Login begins a session, which later calls use.
func (c *Client) Login(ctx context.Context, username, password string) error {
	form := url.Values{"username": {username}, "password": {password}}
	request, err := NewLoginRequestWithBody(c.base, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renew(ctx, request)
}

// Logout ends the session.
func (c *Client) Logout(ctx context.Context) error {
	c.mu.Lock()
	refresh := c.tokens.RefreshToken
	c.mu.Unlock()
	request, err := NewLogoutRequest(c.base, wire.RefreshRequest{RefreshToken: refresh})
	if err := c.do(ctx, request, err, nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = wire.Tokens{}
	return nil
}

// renew sends a request whose answer is a session. The caller holds the lock.
func (c *Client) renew(ctx context.Context, request *http.Request) error {
	response, err := c.http.Do(request.WithContext(ctx))
	if err != nil {
		return err
	}
	var tokens wire.Tokens
	if err := read(response, &tokens); err != nil {
		return err
	}
	c.tokens = tokens
	return nil
}

// refresh replaces the session whose access token was refused, unless another call has done so meanwhile.
func (c *Client) refresh(ctx context.Context, refused string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens.AccessToken != refused {
		return nil
	}
	request, err := NewRefreshRequest(c.base, wire.RefreshRequest{RefreshToken: c.tokens.RefreshToken})
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	return c.renew(ctx, request)
}

// signedIn reports whether there is a session.
func (c *Client) signedIn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens.AccessToken != ""
}

// do sends a request that was made (or not: madeErr) and reads its answer into out, if that is not nil.
func (c *Client) do(ctx context.Context, request *http.Request, madeErr error, out any) error {
	response, err := c.send(ctx, request, madeErr)
	if err != nil {
		return err
	}
	return read(response, out)
}

// send sends a request with the session. When the access token has expired it refreshes the session and tries once
// more.
func (c *Client) send(ctx context.Context, request *http.Request, madeErr error) (*http.Response, error) {
	if madeErr != nil {
		return nil, fmt.Errorf("make request: %w", madeErr)
	}
	for last := false; ; last = true {
		c.mu.Lock()
		access := c.tokens.AccessToken
		c.mu.Unlock()
		attempt := request.Clone(ctx)
		if request.GetBody != nil {
			body, err := request.GetBody()
			if err != nil {
				return nil, fmt.Errorf("repeat body: %w", err)
			}
			attempt.Body = body
		}
		if access != "" {
			attempt.Header.Set("Authorization", "Bearer "+access)
		}
		response, err := c.http.Do(attempt)
		if err != nil || response.StatusCode != http.StatusUnauthorized || access == "" || last {
			return response, err
		}
		if refreshErr := c.refresh(ctx, access); refreshErr != nil {
			return response, nil // the refusal that began it says more
		}
		response.Body.Close()
	}
}

// read reads an answer and closes it.
func read(response *http.Response, out any) error {
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode >= 300 {
		return refusal(response, data)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

func refusal(response *http.Response, data []byte) error {
	e := &Error{Status: response.StatusCode}
	if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	var problem wire.Problem
	var validation wire.ValidationProblem
	switch {
	case json.Unmarshal(data, &problem) == nil && problem.Detail != "":
		e.Detail = problem.Detail
	case json.Unmarshal(data, &validation) == nil && len(validation.Detail) > 0:
		e.Fields = validation.Detail
		var all []string
		for _, f := range e.Fields {
			all = append(all, fmt.Sprintf("%v: %s", f.Loc, f.Msg))
		}
		e.Detail = strings.Join(all, "; ")
	default: // not Signet, or something in between
		e.Detail = "the answer has no reason"
	}
	return e
}
