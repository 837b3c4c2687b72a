package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

// What stands in a row of the table.
const (
	ofToken   = "token"
	ofInserts = "inserts"
	ofMinimal = "minimal"
	ofSignet  = "Signet"
	ofWorker  = "Signet, worker"
)

// row is what was measured of one server, or of a ceiling. The ratios are medians of ratios of turns that followed each other.
type row struct {
	what, key, database string
	clients             int
	server              *running // nil for a ceiling
	turns               []turn
	peak                float64 // MiB

	minimal, token, postgres *row // of the same cell; nil when it does not stand beside them
}

// of finds the rows of the same cell that a row is compared with.
func (r *row) of(cell []*row) {
	for _, other := range cell {
		switch {
		case r.server == nil || other == r:
		case other.what == ofToken:
			r.token = other
		case other.what == ofMinimal && other.database == r.database:
			r.minimal = other
		case other.what == r.what && other.database == "postgres":
			r.postgres = other
		}
	}
}

func (r *row) String() string {
	return fmt.Sprintf("%s, %s, %s, %d clients", r.what, r.key, r.database, r.clients)
}

func rateOf(t turn) float64 { return t.rate }
func p50Of(t turn) float64  { return milliseconds(t.p50) }
func p99Of(t turn) float64  { return milliseconds(t.p99) }

func (r *row) rate() float64 { return median(r.turns, rateOf) }

// against is the median over the turns of f of this row by f of the other.
func (r *row) against(other *row, f func(turn) float64) float64 {
	ratios := make([]turn, len(r.turns))
	for i := range ratios {
		ratios[i].rate = f(r.turns[i]) / f(other.turns[i])
	}
	return median(ratios, rateOf)
}

// perCertificate is processor time in ms over all turns.
func (r *row) perCertificate(f func(turn) time.Duration) float64 {
	var used time.Duration
	made := 0
	for _, t := range r.turns {
		used += f(t) * time.Duration(t.made)
		made += t.made
	}
	return milliseconds(used / time.Duration(made))
}

func (r *row) cpu() float64 { return r.perCertificate(func(t turn) time.Duration { return t.server }) }

func (r *row) failed() (n int) {
	for _, t := range r.turns {
		n += t.failed
	}
	return n
}

var columns = []string{"", "CA key", "database", "clients", "per second", "p50 ms", "p99 ms", "CPU ms", "database CPU ms", "client CPU ms",
	"peak MiB", "failed", "of minimal", "p50 ×", "p99 ×", "of token", "of PostgreSQL"}

func (r *row) cells() []string {
	c := []string{r.what, r.key, r.database, fmt.Sprint(r.clients), fmt.Sprintf("%.0f", r.rate())}
	if r.server != nil {
		c = append(c, fmt.Sprintf("%.2f", median(r.turns, p50Of)), fmt.Sprintf("%.2f", median(r.turns, p99Of)), fmt.Sprintf("%.2f", r.cpu()),
			fmt.Sprintf("%.2f", r.perCertificate(func(t turn) time.Duration { return t.database })),
			fmt.Sprintf("%.2f", r.perCertificate(func(t turn) time.Duration { return t.client })),
			fmt.Sprintf("%.0f", r.peak), fmt.Sprint(r.failed()))
	}
	for len(c) < len(columns) {
		c = append(c, "")
	}
	ratio := func(column int, other *row, f func(turn) float64) {
		if other != nil {
			c[column] = fmt.Sprintf("%.2f", r.against(other, f))
		}
	}
	ratio(12, r.minimal, rateOf)
	ratio(13, r.minimal, p50Of)
	ratio(14, r.minimal, p99Of)
	ratio(15, r.token, rateOf)
	ratio(16, r.postgres, rateOf)
	return c
}

// table is the rows in Markdown, with columns that stand in line.
func table(rows []*row) string {
	lines := [][]string{columns}
	for _, r := range rows {
		lines = append(lines, r.cells())
	}
	widths := make([]int, len(columns))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)), 3)
		}
	}
	var b strings.Builder
	for i, line := range lines {
		for j, cell := range line {
			fill := strings.Repeat(" ", widths[j]-len([]rune(cell)))
			if j < 3 {
				fmt.Fprintf(&b, "| %s%s ", cell, fill)
			} else {
				fmt.Fprintf(&b, "| %s%s ", fill, cell)
			}
		}
		b.WriteString("|\n")
		if i > 0 {
			continue
		}
		for j, width := range widths {
			if j < 3 {
				b.WriteString("|" + strings.Repeat("-", width+2))
			} else {
				b.WriteString("|" + strings.Repeat("-", width+1) + ":")
			}
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// goal is what a row shall show: at least or at most.
type goal struct {
	key, database string
	clients       int
	says          string
	value         func(r *row) (float64, bool)
	least         bool
	limit         float64
}

func versus(other func(*row) *row, f func(turn) float64) func(*row) (float64, bool) {
	return func(r *row) (float64, bool) {
		if o := other(r); o != nil {
			return r.against(o, f), true
		}
		return 0, false
	}
}

var (
	byMinimal  = func(r *row) *row { return r.minimal }
	byToken    = func(r *row) *row { return r.token }
	byPostgres = func(r *row) *row { return r.postgres }
)

var issuanceGoals = []goal{
	{"P-256", "postgres", mostClients, "rate by that of the minimal service", versus(byMinimal, rateOf), true, 0.75},
	{"P-256", "postgres", mostClients, "processor time of the server per certificate, ms", func(r *row) (float64, bool) { return r.cpu(), true }, false, 0.7},
	{"P-256", "postgres", mostClients, "p99 by that of the minimal service", versus(byMinimal, p99Of), false, 2},
	{"P-256", "postgres", 1, "p50 by that of the minimal service", versus(byMinimal, p50Of), false, 1.6},
	{"RSA-4096", "postgres", mostClients, "rate by that of the token", versus(byToken, rateOf), true, 0.75},
	{"RSA-2048", "postgres", mostClients, "rate by that of the token", versus(byToken, rateOf), true, 0.5},
	{"P-256", "sqlite", mostClients, "rate by that on PostgreSQL", versus(byPostgres, rateOf), true, 0.5},
}

// goals says for each goal that the rows tell of how Signet stands.
func goals(rows []*row) (lines []string) {
	for _, g := range issuanceGoals {
		for _, r := range rows {
			if r.what != ofSignet || r.key != g.key || r.database != g.database || r.clients != g.clients {
				continue
			}
			value, known := g.value(r)
			if !known {
				continue
			}
			limit, kept := "at most", value <= g.limit
			if g.least {
				limit, kept = "at least", value >= g.limit
			}
			verdict := map[bool]string{true: "kept", false: "MISSED"}[kept]
			lines = append(lines, fmt.Sprintf("- %s: %s, %s, %s: %.2f, wanted %s %.2f", verdict, g.key, g.database, clientsOf(g.clients)+", "+g.says, value, limit, g.limit))
		}
	}
	return lines
}

func clientsOf(n int) string {
	if n == 1 {
		return "one client"
	}
	return fmt.Sprintf("%d clients", n)
}

var modelName = regexp.MustCompile(`model name\s*: (.*)`)

func cpus() int { return runtime.GOMAXPROCS(0) }

// machine names what the table was measured on.
func (bench *issuanceBench) machine(b *testing.B) string {
	b.Helper()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		b.Fatal(err)
	}
	model := "an unnamed processor"
	if match := modelName.FindSubmatch(info); match != nil {
		model = string(match[1])
	}
	library, _, _ := sqlite3.Version()
	line := fmt.Sprintf("%s, %d cores, %s, PostgreSQL %s, SQLite %s", model, cpus(), runtime.Version(), bench.version, library)
	if bench.token != nil {
		if token, err := bench.token.module.GetInfo(); err == nil {
			line += fmt.Sprintf(", SoftHSM %d.%d", token.LibraryVersion.Major, token.LibraryVersion.Minor)
		}
	}
	return line + ", " + time.Now().UTC().Format("2006-01-02")
}
