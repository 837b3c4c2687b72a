package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"signet/fault"
)

// authenticated lets only known callers through. It comes before everything else that could go wrong with a request.
func (s *server) authenticated(h handler) handler {
	return func(w http.ResponseWriter, r *request) error {
		known, err := s.identify(r)
		if err != nil {
			return err
		}
		if !known {
			return fault.New(fault.Unauthenticated, "Not authenticated")
		}
		return h(w, r)
	}
}

// identified lets everybody through, and finds out who says who is calling.
func (s *server) identified(h handler) handler {
	return func(w http.ResponseWriter, r *request) error {
		if _, err := s.identify(r); err != nil {
			return err
		}
		return h(w, r)
	}
}

// identify finds out who is calling; false when nobody says so.
func (s *server) identify(r *request) (bool, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false, nil
	}
	session, err := s.identity.Authenticate(r.Context(), strings.TrimSpace(token))
	if err != nil {
		return false, err
	}
	r.session = session
	exchangeOf(r.Context()).userID = session.User.ID
	return true, nil
}

// forwarded are the headers by which a proxy says that it speaks for somebody else.
var forwarded = []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP"}

// isLocal reports whether a request was made by somebody on this machine: it comes from a loopback address, no proxy
// passed it on, and no web page of another origin sent it through a browser here (by a cross-site request, or by a
// host name that was made to resolve to a loopback address).
func isLocal(r *http.Request) bool {
	if !isLoopback(peerAddress(r)) || !isLoopback(hostOf(r.Host)) {
		return false
	}
	for _, name := range forwarded {
		if r.Header.Values(name) != nil {
			return false
		}
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return false
		}
	}
	for _, origin := range r.Header.Values("Origin") {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return false
		}
	}
	return true
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}
