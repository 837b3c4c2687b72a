package store

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestTheHostToBeginWithMovesOnByHosts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, url string
		want      []string // the hosts that are tried first, one failure after another; * with TLS
	}{
		{"one host", "postgres://u@a/db?sslmode=disable", []string{"a:5432", "a:5432"}},
		{"two hosts", "postgres://u@a,b/db?sslmode=disable", []string{"a:5432", "b:5432", "a:5432"}},
		{"TLS is always tried before no TLS", "postgres://u@a,b,c/db?sslmode=prefer", []string{"a:5432*", "b:5432*", "c:5432*", "a:5432*"}},
		{"ports are hosts, too", "postgres://u@a:1,a:2/db?sslmode=require", []string{"a:1*", "a:2*", "a:1*"}},
	} {
		config, err := pgx.ParseConfig(c.url)
		if err != nil {
			t.Fatal(err)
		}
		before := 1 + len(config.Fallbacks)
		h := hostsOf(config)
		for n, want := range c.want {
			arranged := config.Copy()
			if err := h.arrange(t.Context(), arranged); err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s:%d", arranged.Host, arranged.Port)
			if arranged.TLSConfig != nil {
				got += "*"
			}
			if got != want {
				t.Errorf("%s: after %d failures %s is first, want %s", c.name, n, got, want)
			}
			if now := 1 + len(arranged.Fallbacks); now != before {
				t.Errorf("%s: %d ways to connect became %d", c.name, before, now)
			}
			h.first.Add(1)
		}
	}
}
