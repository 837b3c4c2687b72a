package store_test

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"signet/fault"
	"signet/store"
	"signet/store/pgtest"
)

// overTCP makes the URL of a database that is reached as one of another machine is: what the server said before it hung up is read
// after the next statement was sent.
func overTCP(t *testing.T, database string) *url.URL {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	socket := filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer server.Close()
				go func() {
					io.Copy(server, client)
					server.Close()
				}()
				io.Copy(client, server)
			}()
		}
	}()
	u.Host = listener.Addr().String()
	u.RawQuery = "sslmode=disable"
	return u
}

func TestATransactionThatPausedForTooLongIsUnavailable(t *testing.T) {
	t.Parallel()
	u := overTCP(t, pgtest.Prepared(t, migrate))
	u.RawQuery += "&idle_in_transaction_session_timeout=10"
	db := open(t, store.Config{URL: u.String()})
	if err := db.Pause(t.Context(), time.Second); !fault.Is(err, fault.Unavailable) {
		t.Errorf("error is %v, want %v", err, fault.Unavailable)
	}
}
