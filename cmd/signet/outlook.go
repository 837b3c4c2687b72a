package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet/ca"
)

const lookEvery = time.Minute

// expiringWithin are the times for which certificates are counted, with their labels.
var expiringWithin = []struct {
	time.Duration
	label string
}{{24 * time.Hour, "24h"}, {168 * time.Hour, "168h"}, {720 * time.Hour, "720h"}}

// ends is what an outlook needs of the certificate authority.
type ends interface {
	Outlook(ctx context.Context, within ...time.Duration) ([]ca.Outlook, error)
	Leads() bool
}

// outlook is what ends, as metrics: as of the last look, which another look replaces as a whole.
type outlook struct {
	authority                                   ends
	seen                                        atomic.Pointer[[]ca.Outlook]
	notAfter, expiring, next, number, end, lead *prometheus.Desc
}

// lookOut adds the metrics of what ends.
func (m *metrics) lookOut(authority ends) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m.outlook = &outlook{
		authority: authority,
		notAfter:  desc("signet_ca_not_after_timestamp_seconds", "notAfter of a CA that is neither revoked nor deleted.", "ca"),
		expiring:  desc("signet_certificates_expiring", "Valid certificates that expire within a time.", "ca", "within"),
		next: desc("signet_crl_next_update_timestamp_seconds",
			"Earliest nextUpdate of the current complete lists of a CA that must be kept up; 0 while one is missing.", "ca"),
		number: desc("signet_crl_number", "Number of the newest current list of a CA.", "ca"),
		end:    desc("signet_ocsp_responder_not_after_timestamp_seconds", "notAfter of the OCSP responder of a CA that is kept up.", "ca"),
		lead:   desc("signet_leader", "1 when this replica does the background work for all."),
	}
	m.registry.MustRegister(m.outlook)
}

// run looks once a minute until ctx ends.
func (o *outlook) run(ctx context.Context, failed func(task string, err error)) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		o.look(ctx, failed)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (o *outlook) look(ctx context.Context, failed func(task string, err error)) {
	var within []time.Duration
	for _, w := range expiringWithin {
		within = append(within, w.Duration)
	}
	all, err := o.authority.Outlook(ctx, within...)
	if err != nil {
		if ctx.Err() == nil {
			failed("outlook", err)
		}
		return
	}
	o.seen.Store(&all)
}

// Describe implements prometheus.Collector.
func (o *outlook) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{o.notAfter, o.expiring, o.next, o.number, o.end, o.lead} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (o *outlook) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(o.lead, oneIf(o.authority.Leads()))
	seen := o.seen.Load()
	if seen == nil {
		return
	}
	for _, e := range *seen {
		slug := ca.Slug(e.CA.Name, e.CA.ID)
		if e.CA.State == ca.Valid && e.CA.DeletedAt == nil {
			gauge(o.notAfter, seconds(e.CA.NotAfter), slug)
		}
		if e.CA.DeletedAt == nil {
			for i, n := range e.Expiring {
				gauge(o.expiring, float64(n), slug, expiringWithin[i].label)
			}
		}
		if next, ok := e.NextUpdate(); ok {
			gauge(o.next, seconds(next), slug)
			gauge(o.number, float64(e.CRLNumber()), slug)
			if e.Responder != nil {
				gauge(o.end, seconds(e.Responder.NotAfter), slug)
			}
		}
	}
}

// seconds is a time as Prometheus has it; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
