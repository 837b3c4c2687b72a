package main

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"signet/ca"
	"signet/evidence"
	"signet/keystore"
	"signet/notify"
	"signet/policy"
)

// metrics is what the server counts. docs/operations.md describes each.
type metrics struct {
	registry  *prometheus.Registry
	issued    *prometheus.CounterVec
	revoked   *prometheus.CounterVec
	refused   *prometheus.CounterVec
	published prometheus.Counter
	removed   *prometheus.CounterVec
	crlTime   prometheus.Histogram
	drills    *prometheus.CounterVec
	locks     *prometheus.CounterVec
	failures  *prometheus.CounterVec
	tokenOps  *prometheus.CounterVec
	tokenTime *prometheus.HistogramVec
	sessions  *prometheus.GaugeVec
	tokenUp   *prometheus.GaugeVec
	healed    *prometheus.GaugeVec
	database  *prometheus.HistogramVec
	ready     *prometheus.GaugeVec
	answers   *prometheus.CounterVec
	webhook   *prometheus.CounterVec
	leafKeys  *prometheus.CounterVec
	keysAhead *prometheus.GaugeVec
	outlook   *outlook
}

// latencyBuckets reach from a P-256 signature in software (50 us) to the deadline of a token operation.
var latencyBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: latencyBuckets}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"token"})
	}
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		issued:    counter("signet_certificates_issued_total", "Certificates issued, CA certificates included.", "type"),
		revoked:   counter("signet_certificates_revoked_total", "Certificates revoked, by CRLReason (RFC 5280, section 5.3.1).", "reason"),
		refused:   counter("signet_requests_refused_total", "Requests refused, by the step that refused.", "step"),
		published: prometheus.NewCounter(prometheus.CounterOpts{Name: "signet_crl_published_total", Help: "Revocation lists signed."}),
		removed:   counter("signet_records_removed_total", "Records whose retention was over, removed by this replica.", "kind"),
		crlTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signet_crl_publish_seconds", Help: "Time to sign and store a revocation list.", Buckets: latencyBuckets}),
		drills:    counter("signet_ca_key_drills_total", "Attacks on CA keys, by what caused them and the grade that followed.", "trigger", "grade"),
		locks:     counter("signet_ca_locks_total", "CAs locked or unlocked because of the grade of their key.", "state"),
		failures:  counter("signet_background_failures_total", "Background work that failed and will be tried again.", "task"),
		tokenOps:  counter("signet_token_operations_total", "Operations of the PKCS#11 tokens.", "token", "op", "result"),
		tokenTime: histogram("signet_token_operation_seconds", "Duration of token operations, waiting for a session included.", "token", "op"),
		sessions:  gauge("signet_token_sessions", "Token sessions open at the last health check."),
		tokenUp:   gauge("signet_token_up", "1 when the token signed at its last health check."),
		healed:    gauge("signet_token_recoveries", "Times since the start that the token was in doubt or away and was brought back: by a new session, a login, or a restart of its module."),
		database:  histogram("signet_database_seconds", "Duration of database operations.", "op"),
		answers:   counter("signet_ocsp_requests_total", "OCSP requests, by what was answered.", "outcome"),
		webhook:   counter("signet_webhook_deliveries_total", "Attempts to deliver a notification to the webhook.", "outcome"),
		leafKeys:  counter("signet_rsa_leaf_keys_total", "RSA keys made for certificates, by when: ahead of the request, or for it.", "made"),
		keysAhead: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "signet_keys_ahead", Help: "Keys for certificates that were made ahead and are not used yet."}, []string{"type", "size"}),
		ready: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "signet_ready", Help: "1 when the component passed its last health check."}, []string{"component"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "signet_build_info", Help: "1, with the version as a label."}, []string{"version"})
	build.WithLabelValues(programVersion()).Set(1)
	m.registry.MustRegister(m.issued, m.revoked, m.refused, m.published, m.removed, m.crlTime, m.drills, m.locks, m.failures, m.tokenOps, m.tokenTime,
		m.sessions, m.tokenUp, m.healed, m.database, m.ready, m.answers, m.webhook, m.leafKeys, m.keysAhead, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.startAtZero()
	return m
}

// startAtZero makes the series exist before the first event, so that a rate over it is right from the start.
func (m *metrics) startAtZero() {
	for _, t := range []policy.CertificateType{policy.Server, policy.Client, policy.DualPurpose, policy.CA} {
		m.issued.WithLabelValues(string(t))
	}
	for _, step := range []string{"permission", "policy", "lint", "token", "store"} {
		m.refused.WithLabelValues(step)
	}
	for _, state := range lockStates {
		m.locks.WithLabelValues(state)
	}
	tasks := []string{"crl", "feed", "lease", "reconcile", "prune", "drill", "responder", "ocsp", "presign", "outlook", "notices", "webhook", "keys-ahead", "retention"}
	for _, task := range tasks {
		m.failures.WithLabelValues(task)
	}
	for _, kind := range ca.RecordKinds {
		m.removed.WithLabelValues(string(kind))
	}
	for _, outcome := range []string{"cached", "signed", "unknown", "refused"} {
		m.answers.WithLabelValues(outcome)
	}
	for _, when := range whenMade {
		m.leafKeys.WithLabelValues(when)
	}
	m.keysAhead.WithLabelValues(string(policy.RSA), "2048")
	for _, outcome := range notify.Outcomes {
		m.webhook.WithLabelValues(string(outcome))
	}
}

var whenMade = map[bool]string{true: "ahead", false: "on request"}

var lockStates = map[bool]string{true: "locked", false: "unlocked"}

// hooks connects the certificate authority's events; failed is told of background work that failed.
func (m *metrics) hooks(failed func(task string, err error)) ca.Hooks {
	return ca.Hooks{
		Issued:  func(t policy.CertificateType) { m.issued.WithLabelValues(string(t)).Inc() },
		Revoked: func(reason int) { m.revoked.WithLabelValues(strconv.Itoa(reason)).Inc() },
		Refused: func(step string) { m.refused.WithLabelValues(step).Inc() },
		Published: func(_ int, took time.Duration) {
			m.published.Inc()
			m.crlTime.Observe(took.Seconds())
		},
		Drilled: func(t ca.Trigger, g evidence.Grade) { m.drills.WithLabelValues(string(t), string(g)).Inc() },
		Locked:  func(locked bool) { m.locks.WithLabelValues(lockStates[locked]).Inc() },
		LeafKey: func(ahead bool) { m.leafKeys.WithLabelValues(whenMade[ahead]).Inc() },
		KeysAhead: func(size, n int) {
			m.keysAhead.WithLabelValues(string(policy.RSA), strconv.Itoa(size)).Set(float64(n))
		},
		Removed:  func(kind ca.RecordKind, n int) { m.removed.WithLabelValues(string(kind)).Add(float64(n)) },
		Answered: func(outcome string) { m.answers.WithLabelValues(outcome).Inc() },
		Failed:   failed,
	}
}

// watch shows how full a listener is.
func (m *metrics) watch(l *connections) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "signet_connections", Help: "Connections that are open on the main address."},
			func() float64 { return float64(l.count()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "signet_connections_shed_total", Help: "Connections that were closed to make room for new ones, and new ones for which there was none."},
			func() float64 { return float64(l.closed.Load()) }))
}

// token observes one operation of the token.
func (m *metrics) token(name, op string, took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.tokenOps.WithLabelValues(name, op, result).Inc()
	m.tokenTime.WithLabelValues(name, op).Observe(took.Seconds())
}

// tokenState records what a token says of its own outages.
func (m *metrics) tokenState(name string, state keystore.State) {
	m.healed.WithLabelValues(name).Set(float64(state.Recoveries))
	if !state.Up {
		m.tokenSigns(name, false)
	}
}

// tokenSigns records the verdict of a token's health check.
func (m *metrics) tokenSigns(name string, ok bool) { m.tokenUp.WithLabelValues(name).Set(oneIf(ok)) }

// component records the verdict of a health check.
func (m *metrics) component(name string, ok bool) { m.ready.WithLabelValues(name).Set(oneIf(ok)) }

func oneIf(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}
