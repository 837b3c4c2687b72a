package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAHealthCheckGetsThroughAFloodOfSlowBodies(t *testing.T) {
	t.Parallel()
	r := newSite(t, "sqlite", "--max-connections", "16").start("signet")
	send := func(text string) net.Conn {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, text) // the server may have hung up
		return conn
	}
	for range 3 { // a connection whose head was not read yet makes room for others
		for range 40 {
			send("POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nusername=")
		}
		time.Sleep(200 * time.Millisecond)
	}
	eventually(t, 10*time.Second, "the health check is answered", func() bool {
		conn := send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err == nil && answer.StatusCode == http.StatusOK
	})
}
