package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// benchPlan is how much of BenchmarkIssuance runs. Everything else follows from what is compared: whatever stands in one cell
// takes turns, so that the noise of the machine hits all alike.
type benchPlan struct {
	databases []string
	kinds     []caKey
	clients   []int
	ceilings  bool // of token and databases
	worker    bool // P-256, PostgreSQL, 32 clients with the module in a worker
}

// benchmarkPlan is everything, or what SIGNET_BENCH names: "quick" is what a change is judged by while it is made.
func benchmarkPlan(b *testing.B) benchPlan {
	switch name := os.Getenv("SIGNET_BENCH"); name {
	case "quick":
		return benchPlan{databases: []string{"postgres"}, kinds: caKeys[:1], clients: []int{1, mostClients}}
	case "":
		return benchPlan{databases: []string{"postgres", "sqlite"}, kinds: caKeys, clients: []int{1, 8, mostClients}, ceilings: true, worker: true}
	default:
		b.Fatalf("SIGNET_BENCH=%s: want quick, or nothing", name)
		return benchPlan{}
	}
}

const (
	mostClients = 32
	warmUp      = 300 * time.Millisecond
	rawTurn     = 500 * time.Millisecond // of a ceiling
	rawTurns    = 3
)

// turnsOf is how long a cell is measured. The most is said of P-256.
func turnsOf(k caKey) (n int, each time.Duration) {
	if k.Name == "P-256" {
		return 7, 1500 * time.Millisecond
	}
	return 5, time.Second
}

// BenchmarkIssuance prints one table of what issuance costs (docs/performance.md): the ceilings of token and databases, the minimal
// service, and Signet with everything, each over HTTP in a process of its own. A part of it runs with
// -bench 'BenchmarkIssuance/RSA-4096'.
func BenchmarkIssuance(b *testing.B) {
	plan := benchmarkPlan(b)
	bench := newIssuanceBench(b, plan)
	if plan.ceilings {
		b.Run("ceilings", func(b *testing.B) { bench.ceilings(b, plan) })
	}
	for _, k := range plan.kinds {
		for _, clients := range plan.clients {
			b.Run(fmt.Sprintf("%s/clients=%d", k.Name, clients), func(b *testing.B) { bench.cell(b, k, clients) })
		}
	}
	if len(bench.rows) > 0 {
		fmt.Printf("\n%s\n%s\n", bench.machine(b), table(bench.rows))
		for _, line := range goals(bench.rows) {
			fmt.Println(line)
		}
		fmt.Println()
	}
	for _, r := range bench.rows {
		for _, t := range r.turns {
			if t.failed > 0 {
				b.Errorf("%s: %d requests failed, such as: %v", r, t.failed, t.firstOfFailure)
			}
		}
	}
}

// issuanceBench has every server up, of which one at a time is under load.
type issuanceBench struct {
	servers []*benchServer
	token   *tokenCeilings // nil: not measured
	version string         // of PostgreSQL
	rows    []*row
}

// benchServer is a service on a database, with the CAs that were asked for.
type benchServer struct {
	what, database string
	server         *running
	postgres       int // process id, or 0
	targets        map[caKey]*target
}

func newIssuanceBench(b *testing.B, plan benchPlan) *issuanceBench {
	b.Helper()
	bench := &issuanceBench{}
	for _, database := range plan.databases {
		bench.start(b, ofMinimal, "signet-minimal", database)
		bench.start(b, ofSignet, "signet", database)
	}
	if plan.worker {
		bench.start(b, ofWorker, "signet", "postgres", "--pkcs11-worker")
	}
	if plan.ceilings {
		bench.token = newTokenCeilings(b)
	}
	return bench
}

func (bench *issuanceBench) start(b *testing.B, what, program, database string, flags ...string) {
	b.Helper()
	s := newSite(b, database, flags...)
	s.logToFile(b)
	server := &benchServer{what: what, database: database, server: s.start(program), targets: map[caKey]*target{}}
	if what != ofMinimal {
		server.server.firstUser()
	}
	if database == "postgres" {
		server.postgres, bench.version = postgresServer(b, s.url)
	}
	bench.servers = append(bench.servers, server)
}

// logToFile keeps what servers log as an operator would: reading it here would cost processor time, and servers wait for
// whoever reads a pipe.
func (s *site) logToFile(b *testing.B) {
	b.Helper()
	log, err := os.Create(b.TempDir() + "/log")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	s.log = log
}

// postgresServer is the process whose children serve connections, and its version.
func postgresServer(b *testing.B, url string) (pid int, version string) {
	b.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid(), current_setting('server_version')").Scan(&pid, &version); err != nil {
		b.Fatal(err)
	}
	return processes().parent(pid), version
}

func (s *benchServer) target(b *testing.B, k caKey) *target {
	b.Helper()
	if s.targets[k] == nil {
		s.targets[k] = newTarget(b, s.server, s.postgres, k)
	}
	return s.targets[k]
}

// cell measures every server with a kind of CA key and so many clients, and the token beside them for most clients.
func (bench *issuanceBench) cell(b *testing.B, k caKey, clients int) {
	var rows []*row
	var turnOf []func(time.Duration) turn
	for _, s := range bench.servers {
		if s.what == ofWorker && (k.Name != "P-256" || clients != mostClients) {
			continue
		}
		t := s.target(b, k)
		rows = append(rows, &row{what: s.what, key: k.Name, database: s.database, clients: clients, server: s.server})
		turnOf = append(turnOf, func(d time.Duration) turn { return t.turn(b, clients, d) })
	}
	if bench.token != nil && clients == mostClients {
		ceiling := bench.token.of(b, k, mostGoroutines)
		rows = append(rows, &row{what: ofToken, key: k.Name, clients: mostGoroutines})
		turnOf = append(turnOf, func(d time.Duration) turn { return ceiling.turn(b, min(d, rawTurn)) })
	}
	for i, r := range rows {
		turnOf[i](warmUp)
		if r.server != nil {
			r.server.resetPeak(b)
		}
	}
	n, each := turnsOf(k)
	b.ResetTimer()
	for i := range n {
		for j := range rows {
			if j = (i + j) % len(rows); i%2 == 1 {
				j = len(rows) - 1 - j // nobody always follows the same neighbour
			}
			rows[j].turns = append(rows[j].turns, turnOf[j](each))
		}
	}
	b.StopTimer()
	for _, r := range rows {
		if r.server != nil {
			r.peak = r.server.peak(b)
		}
		r.of(rows)
		name := strings.ReplaceAll(r.what, ", ", "-") // a unit has no spaces
		if r.database != "" {
			name += "-" + r.database
		}
		b.ReportMetric(r.rate(), name+"/s")
	}
	b.ReportMetric(0, "ns/op")
	bench.rows = append(bench.rows, rows...)
}

// ceilings measures what limits every service.
func (bench *issuanceBench) ceilings(b *testing.B, plan benchPlan) {
	for _, c := range insertCeilings {
		bench.rows = append(bench.rows, &row{what: ofInserts + ", " + c.String(), database: c.database, clients: c.connections, turns: c.measure(b, rawTurns, rawTurn)})
	}
	for _, k := range plan.kinds {
		cores := &row{what: ofToken, key: k.Name, clients: cpus()}
		ceiling := bench.token.of(b, k, cores.clients)
		for range rawTurns {
			cores.turns = append(cores.turns, ceiling.turn(b, rawTurn))
		}
		bench.rows = append(bench.rows, cores)
	}
	b.ReportMetric(0, "ns/op")
}

// median of what f says of the turns.
func median(turns []turn, f func(turn) float64) float64 {
	all := make([]float64, len(turns))
	for i, t := range turns {
		all[i] = f(t)
	}
	slices.Sort(all)
	return all[len(all)/2]
}
