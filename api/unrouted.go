package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/mux"
)

// notFound answers paths without a route. Where only the slash at the end is wrong it redirects, with a relative
// reference: the Host header is the client's word.
func (s *server) notFound(w http.ResponseWriter, r *http.Request) {
	other := url.URL{Path: r.URL.Path + "/", RawQuery: r.URL.RawQuery}
	if trimmed, ok := strings.CutSuffix(r.URL.Path, "/"); ok {
		other.Path = trimmed
	}
	if !strings.HasPrefix(other.Path, "//") && s.match(r.Method, other.Path) != mux.ErrNotFound {
		w.Header().Set("Location", other.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	writeProblem(w, http.StatusNotFound, "Not Found")
}

// methodNotAllowed says which methods the path has.
func (s *server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		if s.match(method, r.URL.Path) == nil {
			allowed = append(allowed, method)
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeProblem(w, http.StatusMethodNotAllowed, "Method Not Allowed")
}

// match finds out whether a path has a route: nil, mux.ErrNotFound or mux.ErrMethodMismatch.
func (s *server) match(method, path string) error {
	var found mux.RouteMatch
	probe := http.Request{Method: method, URL: &url.URL{Path: path}}
	if path == "" || !s.router.Match(&probe, &found) {
		return mux.ErrNotFound
	}
	return found.MatchErr
}
