package store

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// hosts are those of a database URL. The driver tries them in their order for each connection, each for connect_timeout. When the
// first is dead without refusing connections, an operation has ended by then: so whoever connects after one who did in vain, or
// took long, begins with the next.
type hosts struct {
	all    []*pgconn.FallbackConfig
	starts []int // where in all each host begins: with sslmode=prefer it is there with TLS, then without
	first  atomic.Uint64
}

func hostsOf(config *pgx.ConnConfig) *hosts {
	h := &hosts{all: append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)}
	for i, c := range h.all {
		if i == 0 || c.Host != h.all[i-1].Host || c.Port != h.all[i-1].Port {
			h.starts = append(h.starts, i)
		}
	}
	return h
}

// arrange puts the host that is to be tried first at the front of a configuration.
func (h *hosts) arrange(_ context.Context, config *pgx.ConnConfig) error {
	start := h.starts[h.first.Load()%uint64(len(h.starts))]
	order := append(append([]*pgconn.FallbackConfig{}, h.all[start:]...), h.all[:start]...)
	config.Host, config.Port, config.TLSConfig, config.Fallbacks = order[0].Host, order[0].Port, order[0].TLSConfig, order[1:]
	return nil
}

// hostConnector opens connections to whichever of the hosts takes them.
type hostConnector struct {
	driver.Connector
	hosts *hosts
}

func (h *hosts) connector(config *pgx.ConnConfig) driver.Connector {
	return hostConnector{stdlib.GetConnector(*config, stdlib.OptionBeforeConnect(h.arrange)), h}
}

// Connect implements driver.Connector.
func (c hostConnector) Connect(ctx context.Context) (driver.Conn, error) {
	first, start := c.hosts.first.Load(), time.Now()
	conn, err := c.Connector.Connect(ctx)
	if err != nil || time.Since(start) > impatience {
		c.hosts.first.CompareAndSwap(first, first+1) // of many who fail at once, one moves on
	}
	return conn, err
}
