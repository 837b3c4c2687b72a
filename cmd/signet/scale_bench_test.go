package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/store"
)

// scaleSizes says how many certificates BenchmarkScale grows a database to, such as 10000,100000,1000000.
const scaleSizes = "SIGNET_TEST_SCALE"

// probe is something that is asked of a server again and again.
type probe struct {
	name  string
	rows  int // of which a page has so many
	paths func(i int) string
	admin bool // as the admin of an organization
	plan  func(ctx context.Context, db *store.DB) error
}

// BenchmarkScale grows a database and measures at each size what does not issue: a table of p50 and p99 in milliseconds, one client.
// Issuance is measured with 32 clients, in turns with a server whose database is empty.
func BenchmarkScale(b *testing.B) {
	if os.Getenv(scaleSizes) == "" {
		b.Skip(scaleSizes + " names no sizes")
	}
	var sizes []int
	for text := range strings.SplitSeq(os.Getenv(scaleSizes), ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		sizes = append(sizes, size)
	}
	slices.Sort(sizes)
	empty := newSite(b, "postgres").start("signet")
	empty.firstUser()
	nothing := empty.createCA("Scale")
	g := newSite(b, "postgres").grow(b)
	var names []string
	cells := map[string][]string{}
	note := func(name, cell string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		cells[name] = append(cells[name], cell)
	}
	for _, size := range sizes {
		g.to(b, size)
		g.resetPeak(b)
		for _, p := range g.probes(b) {
			note(p.name, g.measure(b, p))
		}
		note("memory of the server, MiB, peak of the reads", fmt.Sprintf("%.0f", g.peak(b)))
		rate, ratio := issuedPerSecond(b, g.running, g.authority, empty, nothing)
		note("issued/s, 32 clients", fmt.Sprintf("%.0f", rate))
		note("of the rate when empty", fmt.Sprintf("%.2f", ratio))
		note("memory of the server, MiB, peak", fmt.Sprintf("%.0f", g.peak(b)))
		g.explain(b)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\np50 / p99 in ms\t")
	for _, size := range sizes {
		fmt.Fprintf(w, "%d\t", size)
	}
	fmt.Fprintln(w)
	for _, name := range names {
		fmt.Fprintf(w, "%s\t%s\t\n", name, strings.Join(cells[name], "\t"))
	}
	w.Flush()
	b.ReportMetric(0, "ns/op")
	g.stop(syscall.SIGTERM)
	empty.stop(syscall.SIGTERM)
}

// measure asks again and again, for some seconds at most.
func (g *grown) measure(b *testing.B, p probe) string {
	b.Helper()
	who := g.running.client
	if p.admin {
		who = g.admin
	}
	var took []time.Duration
	began := time.Now()
	for i := 0; i < 300 && time.Since(began) < 4*time.Second; i++ {
		start := time.Now()
		who.raw(http.StatusOK, "GET", p.paths(i), nil)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return fmt.Sprintf("%.1f / %.1f", milliseconds(took[len(took)/2]), milliseconds(took[len(took)*99/100]))
}

func issuedPerSecond(b *testing.B, g *running, authority int64, empty *running, nothing int64) (rate, ratio float64) {
	b.Helper()
	second := func(r *running, authority int64) float64 {
		request := object{"ca_id": authority, "certificate_type": "server", "csr": csr(b, "www.example.com")}
		var done atomic.Int64
		var group sync.WaitGroup
		start := time.Now()
		for range 32 {
			group.Go(func() {
				for time.Since(start) < 2*time.Second {
					status, answer, err := r.do("POST", "/api/v1/certificates/sign-csr", request)
					if err != nil || status != http.StatusCreated {
						b.Errorf("status %d, %v: %s", status, err, answer)
						return
					}
					done.Add(1)
				}
			})
		}
		group.Wait()
		return float64(done.Load()) / time.Since(start).Seconds()
	}
	second(g, authority)
	second(empty, nothing)
	var rates, ratios []float64
	for range 5 {
		one, other := second(g, authority), second(empty, nothing)
		rates, ratios = append(rates, one), append(ratios, one/other)
	}
	slices.Sort(rates)
	slices.Sort(ratios)
	return rates[2], ratios[2]
}

// known are facts of the grown database that probes ask for.
type known struct {
	ids     []int64
	serials []string
	names   []string
	alts    []string
	cursors []int64
	slug    string
}

func (g *grown) known(b *testing.B) (k known) {
	b.Helper()
	rows, err := g.db.Query(context.Background(), `SELECT id, serial, split_part(names, E'\n', 1), split_part(names, E'\n', 2) FROM certificates
		WHERE names LIKE '%corp.example.com%' ORDER BY md5(id::text) LIMIT 300`)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var serial, name, alt string
		if err := rows.Scan(&id, &serial, &name, &alt); err != nil {
			b.Fatal(err)
		}
		k.ids, k.serials, k.names, k.alts = append(k.ids, id), append(k.serials, serial), append(k.names, name), append(k.alts, alt)
	}
	k.slug = fmt.Sprintf("scale-1-%d", g.authority-scaleIssuers+1)
	return k
}

func (g *grown) probes(b *testing.B) []probe {
	k := g.known(b)
	at := func(all []string, i int) string { return url.QueryEscape(all[i%len(all)]) }
	all := ca.Scope{All: true}
	user, organization := int64(2), int64(1)
	member := ca.Scope{UserID: user, OrganizationID: &organization}
	now := time.Now()
	soon := now.Add(7 * 24 * time.Hour)
	issuer := g.authority
	certificates := func(name, query string, f ca.CertificateFilter, limit int) probe {
		f.Now = now
		path := "/api/v1/certificates/?" + query
		return probe{name: name, admin: !f.Scope.All, paths: func(i int) string {
			from := strconv.FormatInt(k.ids[i%len(k.ids)], 10)
			return strings.NewReplacer("{serial}", at(k.serials, i), "{name}", at(k.names, i), "{alt}", at(k.alts, i), "{cursor}", cursor(from)).Replace(path)
		}, plan: func(ctx context.Context, db *store.DB) error {
			_, _, err := db.Certificates(ctx, f, ca.Page{After: after(query, k.ids[0]), Limit: limit + 1})
			return err
		}}
	}
	entries := func(name, query string, f audit.Filter) probe {
		f.Limit = 101
		return probe{name: name, admin: f.OrganizationID != nil, paths: func(i int) string {
			return strings.ReplaceAll("/api/v1/audit-logs/?limit=100&"+query, "{id}", strconv.FormatInt(k.ids[i%len(k.ids)], 10))
		}, plan: func(ctx context.Context, db *store.DB) error {
			_, _, err := db.AuditLog(ctx, f)
			return err
		}}
	}
	middle := now.Add(-time.Duration(g.size/2) * 63 * time.Second)
	moment := func(t time.Time) string { return url.QueryEscape(t.UTC().Format(time.RFC3339)) }
	return []probe{
		{name: "nothing (/healthz)", paths: func(int) string { return "/healthz" }},
		{name: "by id", paths: func(i int) string { return fmt.Sprintf("/api/v1/certificates/%d", k.ids[i%len(k.ids)]) },
			plan: func(ctx context.Context, db *store.DB) error { _, err := db.Certificate(ctx, k.ids[0]); return err }},
		certificates("by serial number", "serial={serial}", ca.CertificateFilter{Scope: all, Serial: k.serials[0]}, 1000),
		certificates("page of 100", "limit=100", ca.CertificateFilter{Scope: all}, 100),
		certificates("page of 100, anywhere", "limit=100&cursor={cursor}", ca.CertificateFilter{Scope: all}, 100),
		certificates("page of 1000, anywhere", "cursor={cursor}", ca.CertificateFilter{Scope: all}, 1000),
		certificates("page of 100, skip 10000", "limit=100&skip=10000", ca.CertificateFilter{Scope: all}, 100),
		certificates("page of 100 of a CA", fmt.Sprintf("limit=100&cursor={cursor}&ca_id=%d", issuer), ca.CertificateFilter{Scope: all, IssuerID: &issuer}, 100),
		certificates("page of 100 of an admin", "limit=100&cursor={cursor}", ca.CertificateFilter{Scope: member}, 100),
		certificates("search common name", "limit=100&q={name}", ca.CertificateFilter{Scope: all, Query: k.names[0]}, 100),
		certificates("search alternative name", "limit=100&q={alt}", ca.CertificateFilter{Scope: all, Query: k.alts[0]}, 100),
		certificates("search 1 of 1000", "limit=100&q=.host77.", ca.CertificateFilter{Scope: all, Query: ".host77."}, 100),
		certificates("search 1 of 90", "limit=100&q=host77", ca.CertificateFilter{Scope: all, Query: "host77"}, 100),
		certificates("search half of all", "limit=100&q=www.shop", ca.CertificateFilter{Scope: all, Query: "www.shop"}, 100),
		certificates("search half of all, page of 1000", "q=www.shop", ca.CertificateFilter{Scope: all, Query: "www.shop"}, 1000),
		certificates("search none", "limit=100&q=no-such-name", ca.CertificateFilter{Scope: all, Query: "no-such-name"}, 100),
		certificates("search two characters", "limit=100&q=t7", ca.CertificateFilter{Scope: all, Query: "t7"}, 100),
		certificates("search of an admin", "limit=100&q=.host77.", ca.CertificateFilter{Scope: member, Query: ".host77."}, 100),
		certificates("valid", "limit=100&status=valid", ca.CertificateFilter{Scope: all, Status: "valid"}, 100),
		certificates("valid, page of 1000", "status=valid", ca.CertificateFilter{Scope: all, Status: "valid"}, 1000),
		certificates("expired", "limit=100&status=expired", ca.CertificateFilter{Scope: all, Status: "expired"}, 100),
		certificates("revoked", "limit=100&status=revoked", ca.CertificateFilter{Scope: all, Status: "revoked"}, 100),
		certificates("expires within a week", "limit=100&status=valid&expires_before="+moment(soon),
			ca.CertificateFilter{Scope: all, Status: "valid", ExpiresBefore: &soon}, 100),
		certificates("valid, of an admin", "limit=100&status=valid", ca.CertificateFilter{Scope: member, Status: "valid"}, 100),
		certificates("count", "limit=1", ca.CertificateFilter{Scope: all}, 1),
		certificates("count of an admin", "limit=1", ca.CertificateFilter{Scope: member}, 1),
		{name: "CRL", paths: func(int) string { return "/crl/" + k.slug }},
		entries("audit", "", audit.Filter{}),
		entries("audit of an action", "action=cert_create", audit.Filter{Action: audit.CertCreate}),
		entries("audit of a rare action", "action=org_create", audit.Filter{Action: audit.OrgCreate}),
		entries("audit of a user", "user_id=7", audit.Filter{UserID: ptr(int64(7))}),
		entries("audit of a certificate", "resource_type=certificate&resource_id={id}", audit.Filter{ResourceType: "certificate", ResourceID: &k.ids[0]}),
		entries("audit until half", "until="+moment(middle), audit.Filter{Until: middle}),
		entries("audit of an action until half", "action=cert_create&until="+moment(middle), audit.Filter{Action: audit.CertCreate, Until: middle}),
		entries("audit of an organization", "", audit.Filter{OrganizationID: &organization}),
	}
}

func ptr[T any](v T) *T { return &v }

// cursor is the cursor that ends with this id: what clients get and do not read.
func cursor(id string) string { return url.QueryEscape(encodeCursor(id)) }

func after(query string, id int64) int64 {
	if strings.Contains(query, "{cursor}") {
		return id
	}
	return 0
}

var longArray = regexp.MustCompile(`(\{\d+,\d+,\d+),[\d,]+\}`)

// explain writes the plans of the queries to docs/explain, at the size that is kept there. PostgreSQL logs what it did (auto_explain).
func (g *grown) explain(b *testing.B) {
	if g.size < 1_000_000 {
		return
	}
	ctx := context.Background()
	var data string
	if err := g.db.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		b.Fatal(err)
	}
	log := filepath.Join(filepath.Dir(data), "log")
	settings := url.Values{"session_preload_libraries": {"auto_explain"}, "auto_explain.log_min_duration": {"0"}, "auto_explain.log_analyze": {"on"},
		"auto_explain.log_buffers": {"on"}, "auto_explain.log_timing": {"off"}, "auto_explain.log_parameter_max_length": {"200"}}
	db, err := store.Open(ctx, store.Config{URL: g.site.url + "&" + settings.Encode()})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	folder := filepath.Join("..", "..", "docs", "explain")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		b.Fatal(err)
	}
	for _, p := range g.probes(b) {
		if p.plan == nil {
			continue
		}
		before, err := os.ReadFile(log)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.plan(ctx, db); err != nil {
			b.Fatalf("%s: %v", p.name, err)
		}
		whole, err := os.ReadFile(log)
		if err != nil {
			b.Fatal(err)
		}
		name := strings.NewReplacer(" ", "-", ",", "").Replace(p.name) + ".txt"
		if err := os.WriteFile(filepath.Join(folder, name), []byte(plans(string(whole[len(before):]))), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

var logPrefix = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d [^\n]*?LOG:  duration: ([\d.]+ ms)  plan:\n`)

// plans are the plans in a log: each with its query, without what differs from run to run.
func plans(log string) string {
	var out strings.Builder
	at := logPrefix.FindAllStringSubmatchIndex(log, -1)
	for i, m := range at {
		end := len(log)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		fmt.Fprintf(&out, "-- %s\n", log[m[2]:m[3]])
		for line := range strings.SplitSeq(strings.TrimRight(log[m[1]:end], "\n"), "\n") {
			line = longArray.ReplaceAllString(strings.TrimPrefix(line, "\t"), "$1,...}")
			if len(line) > 400 {
				line = line[:400] + "..."
			}
			fmt.Fprintln(&out, strings.TrimRight(line, " \t"))
		}
	}
	return cmp.Or(out.String(), "no query\n")
}

// encodeCursor is how the API writes cursors today.
func encodeCursor(id string) string { return base64.RawURLEncoding.EncodeToString([]byte("1." + id)) }
