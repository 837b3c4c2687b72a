package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ocsp"

	"signet/softhsm/softhsmtest"
	"signet/store/pgtest"
)

// cluster is three replicas on one PostgreSQL and one token. The last one reaches the database through a wire.
type cluster struct {
	database string // its URL
	sites    []*site
	env      []string // names the token
	replicas []*running
	wire     *wire
	balancer *balancer
}

func newCluster(t *testing.T, flags ...string) *cluster {
	t.Helper()
	_, faults := softhsmtest.Faulty(t)
	c := &cluster{env: faults.Env()}
	database := pgtest.Database(t)
	wire, throughWire := wireTo(t, database)
	c.database, c.wire = database, wire
	secret := secretFile(t, strings.Repeat("s", 40), 0o600)
	for i, address := range []string{database, database, throughWire} {
		s := newSite(t, "sqlite", append([]string{"--data-dir", t.TempDir() + "/data", "--database-url", address, "--secret-key-file", secret,
			"--public-url", "http://pki.example", "--lease-ttl", "3s", "--trusted-proxies", "127.0.0.0/8"}, flags...)...)
		r := s.start("signet", c.env...)
		if i == 0 {
			r.firstUser()
		} else {
			r.token = c.replicas[0].token
		}
		c.sites, c.replicas = append(c.sites, s), append(c.replicas, r)
	}
	c.balancer = balance(t, c.replicas)
	t.Cleanup(func() { // a data race in any of them is a failure
		for _, r := range c.replicas {
			r.stop(syscall.SIGKILL)
		}
	})
	return c
}

// restart starts a replica again after it was killed.
func (c *cluster) restart(i int) {
	r := c.sites[i].start("signet", c.env...)
	r.token = c.replicas[1].token
	c.replicas[i] = r
	c.balancer.point(i, r)
}

// answered is what clients were told.
type answered struct {
	mu       sync.Mutex
	issued   map[int64]object
	revoked  map[int64]bool
	statuses map[string]int
}

func (a *answered) note(what string, status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.statuses[fmt.Sprintf("%s %d", what, status)]++
}

// work is a client that issues, lists, revokes and renews its session until told to stop.
func (a *answered) work(v *visitor, authority int64, request string, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if v.access == "" {
			if a.note("login", v.login(rootName, rootPassword)); v.access == "" {
				time.Sleep(50 * time.Millisecond)
			}
			continue
		}
		status, certificate, _ := v.ask("POST", "/api/v1/certificates/sign-csr", object{
			"ca_id": authority, "certificate_type": "server", "csr": request})
		a.note("issue", status)
		if status == http.StatusCreated {
			a.mu.Lock()
			a.issued[id(certificate)] = certificate
			a.mu.Unlock()
			if i%4 == 0 {
				status, _, _ := v.ask("POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(certificate)), object{"reason": "superseded"})
				if a.note("revoke", status); status == http.StatusOK {
					a.mu.Lock()
					a.revoked[id(certificate)] = true
					a.mu.Unlock()
				}
			}
		} else {
			time.Sleep(20 * time.Millisecond)
		}
		if i%10 == 3 {
			status, _, _ := v.ask("GET", "/api/v1/certificates/?limit=10", nil)
			a.note("list", status)
		}
		if i%10 == 7 {
			if status := v.renew(); status != http.StatusOK { // it may have been used up without an answer
				a.note("refresh", status)
				v.access = ""
			}
		}
	}
}

func TestThreeReplicasSurviveAKillAndACutAndLoseNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--login-rate", "off")
	authority := c.replicas[0].createCA("Shared")
	issuer := c.replicas[0].caCertificate(authority)

	told := &answered{issued: map[int64]object{}, revoked: map[int64]bool{}, statuses: map[string]int{}}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 6 {
		v := &visitor{url: c.balancer.url, address: fmt.Sprintf("192.0.2.%d", i+1)}
		request := csr(t, "www.example.com")
		clients.Go(func() { told.work(v, authority, request, stop) })
	}
	issued := func() int {
		told.mu.Lock()
		defer told.mu.Unlock()
		return len(told.issued)
	}
	more := func(what string) {
		t.Helper()
		before := issued()
		eventually(t, 30*time.Second, what, func() bool { return issued() >= before+30 })
	}
	more("the cluster issues")

	c.replicas[0].stop(syscall.SIGKILL)
	more("two replicas issue while one is dead")
	c.restart(0)
	more("the cluster issues after the restart")

	// The database of one falls silent. It must say so soon, and not keep clients waiting.
	c.wire.cut.Store(true)
	alone := &visitor{url: c.replicas[2].url, address: "192.0.2.100", access: c.replicas[2].token}
	eventually(t, 20*time.Second, "the replica that is cut off is not ready", func() bool {
		status, _, _ := alone.ask("GET", "/readyz", nil)
		return status == http.StatusServiceUnavailable
	})
	asked := time.Now()
	status, _, header := alone.ask("GET", "/api/v1/users/me", nil)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("the replica that is cut off answers %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	if took := time.Since(asked); took > 15*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	more("two replicas issue while one is cut off")
	c.wire.heal()
	eventually(t, 30*time.Second, "the replica is ready again", func() bool {
		status, _, _ := alone.ask("GET", "/readyz", nil)
		return status == http.StatusOK
	})
	more("the cluster issues after the cut")
	close(stop)
	clients.Wait()

	t.Logf("answers: %v", told.statuses)
	for answer := range told.statuses {
		if strings.HasSuffix(answer, " 500") {
			t.Errorf("%d answers %q", told.statuses[answer], answer)
		}
	}
	c.losesNothing(t, told, authority)
	c.listsRevocations(t, told, authority)
	c.recordsAll(t, told)
	serials := map[string]bool{}
	for _, o := range told.issued {
		serials[o["serial_number"].(string)] = true
	}
	if len(serials) != len(told.issued) {
		t.Errorf("%d certificates were answered with %d serial numbers", len(told.issued), len(serials))
	}
	for _, r := range c.replicas {
		for certificate := range told.revoked {
			leaf := parseCertificate(t, told.issued[certificate]["certificate"])
			// The one that was killed may have been certifying the responder: others try when its lease has ended, after 30 s.
			eventually(t, 45*time.Second, "OCSP knows of the revocation", func() bool {
				status, err := r.ocspStatus(leaf, issuer)
				return err == nil && status == ocsp.Revoked
			})
			break
		}
	}
}

// losesNothing: what was answered is what each replica knows.
func (c *cluster) losesNothing(t *testing.T, told *answered, authority int64) {
	t.Helper()
	known := map[int64]object{}
	for {
		page := c.replicas[1].list(fmt.Sprintf("/api/v1/certificates/?ca_id=%d&limit=10000&skip=%d", authority, len(known)))
		for _, o := range page {
			if known[id(o)] != nil {
				t.Errorf("certificate %d is listed twice", id(o))
			}
			known[id(o)] = o
		}
		if len(page) == 0 {
			break
		}
	}
	serials := map[string]bool{}
	for _, o := range known {
		if serial := o["serial_number"].(string); serials[serial] {
			t.Errorf("two certificates have the serial number %s", serial)
		} else {
			serials[serial] = true
		}
	}
	for certificate, o := range told.issued {
		switch k := known[certificate]; {
		case k == nil:
			t.Errorf("certificate %d was answered and is lost", certificate)
		case k["certificate"] != o["certificate"]:
			t.Errorf("certificate %d is another one than was answered", certificate)
		case told.revoked[certificate] && k["status"] != "revoked":
			t.Errorf("certificate %d was revoked and is %s", certificate, k["status"])
		}
	}
}

// recordsAll: the database itself has no serial number twice, whatever became of it, no list number twice or left out, and one event of
// each step for what was answered.
func (c *cluster) recordsAll(t *testing.T, told *answered) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), c.database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	var issued, revoked []int64
	for certificate := range told.issued {
		issued = append(issued, certificate)
	}
	for certificate := range told.revoked {
		revoked = append(revoked, certificate)
	}
	for what, query := range map[string]string{
		"serial numbers given out twice": `SELECT count(*) - count(DISTINCT (issuer, serial)) FROM (
			SELECT issuer_id AS issuer, serial FROM certificates UNION ALL SELECT issuer_id, serial FROM reservations
			UNION ALL SELECT coalesce(parent_id, id), serial FROM certificate_authorities UNION ALL SELECT ca_id, serial FROM ocsp_responders) s`,
		"list numbers left out or given out twice": `SELECT coalesce(sum(abs(last - n)), 0)::bigint FROM (
			SELECT max(number) - min(number) + 1 AS last, count(*) AS n FROM crls GROUP BY ca_id) l`,
		"certificates without one event of each step": `SELECT count(*) FROM unnest(@issued::bigint[]) AS i (id) WHERE EXISTS (
			SELECT 1 FROM unnest(ARRAY['cert_reserve', 'cert_create']) AS step (action) WHERE 1 <> (
				SELECT count(*) FROM audit_log a WHERE a.action = step.action AND resource_type = 'certificate' AND resource_id = i.id))`,
		"revocations without one event, or not in the ledger": `SELECT count(*) FROM unnest(@revoked::bigint[]) AS r (id)
			JOIN certificates c USING (id) WHERE 1 <> (
				SELECT count(*) FROM audit_log WHERE action = 'cert_revoke' AND resource_type = 'certificate' AND resource_id = c.id)
			OR NOT EXISTS (SELECT 1 FROM revocations WHERE ca_id = c.issuer_id AND serial = c.serial)`,
	} {
		var n int64
		if err := db.QueryRow(t.Context(), query, pgx.NamedArgs{"issued": issued, "revoked": revoked}).Scan(&n); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
}

// listsRevocations: every replica serves a list of everything that was revoked, and no number was given out twice or left out.
func (c *cluster) listsRevocations(t *testing.T, told *answered, authority int64) {
	t.Helper()
	issuer := c.replicas[1].caCertificate(authority)
	for _, r := range c.replicas {
		eventually(t, 30*time.Second, "the list has every revocation", func() bool {
			listed := map[string]bool{}
			for _, e := range r.crl("Shared", authority, issuer).RevokedCertificateEntries {
				listed[e.SerialNumber.Text(16)] = true
			}
			for certificate := range told.revoked {
				if !listed[told.issued[certificate]["serial_number"].(string)] {
					return false
				}
			}
			return true
		})
	}
	var numbers []int64
	for _, l := range c.replicas[1].list(fmt.Sprintf("/api/v1/cas/%d/crls?limit=10000", authority)) {
		numbers = append(numbers, int64(l["number"].(float64)))
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != int64(i+1) {
			t.Fatalf("the numbers of the lists are %v, want no gap and no repeat", numbers)
		}
	}
}

// A replica that is cut off in the middle of a transaction leaves its locks behind in the database. The others get them before they
// have waited in vain.
func TestNoReplicaWaitsForTheLocksOfOneThatIsCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--login-rate", "off")
	path := fmt.Sprintf("/api/v1/users/%d", id(c.replicas[0].must(http.StatusCreated, "POST", "/api/v1/users/", object{
		"username": "locked", "email": "locked@example.com", "password": "correct horse", "role": "user"})))
	db, err := pgx.Connect(t.Context(), c.database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	begin := func() pgx.Tx {
		tx, err := db.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "SELECT 1 FROM users WHERE username = 'locked' FOR UPDATE")
		}
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	tx := begin()
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		v := &visitor{url: c.replicas[2].url, access: c.replicas[2].token}
		v.ask("PATCH", path, object{"email": "lost@example.com"})
	}()
	eventually(t, 10*time.Second, "the replica waits for the lock", func() bool {
		var waits bool
		err := tx.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
			AND application_name = 'signet' AND wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	})
	c.wire.cut.Store(true)
	if err := tx.Commit(t.Context()); err != nil { // the lock goes to a transaction that nobody is going to end
		t.Fatal(err)
	}
	c.replicas[0].must(http.StatusOK, "PATCH", path, object{"email": "kept@example.com"})
	<-lost
}

// The database moves to another of the hosts in the URL, and the first one falls silent rather than to refuse connections.
func TestAServerFindsTheHostThatTheDatabaseMovedTo(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	wire, _ := wireTo(t, database)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(wire.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	u.Host, u.RawQuery = "", url.Values{"host": {host + "," + u.Query().Get("host")}, "port": {port + ",5432"}, "sslmode": {"disable"}}.Encode()
	s := newSite(t, "sqlite", "--database-url", u.String())
	r := s.start("signet")
	r.firstUser()
	wire.cut.Store(true)
	eventually(t, 45*time.Second, "the server works on the other host", func() bool {
		status, _, err := r.do("GET", "/api/v1/users/", nil)
		return err == nil && status == http.StatusOK
	})
	eventually(t, 20*time.Second, "the server is ready", func() bool {
		status, _, err := r.do("GET", "/readyz", nil)
		return err == nil && status == http.StatusOK
	})
}

func TestReplicasShareSessionsAndTheLoginLimit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--login-rate", "5/hour")
	at := func(i int, address string) *visitor {
		return &visitor{url: c.replicas[i%len(c.replicas)].url, address: address}
	}

	// Of parallel uses of one refresh token on all replicas, one succeeds.
	first := at(0, "192.0.2.1")
	if status := first.login(rootName, rootPassword); status != http.StatusOK {
		t.Fatalf("log in: %d", status)
	}
	var renewed atomic.Int64
	var group sync.WaitGroup
	for i := range 9 {
		v := at(i, "192.0.2.1")
		v.refresh = first.refresh
		group.Go(func() {
			if v.renew() == http.StatusOK {
				renewed.Add(1)
			}
		})
	}
	if group.Wait(); renewed.Load() != 1 {
		t.Errorf("one refresh token was used %d times", renewed.Load())
	}

	// Five attempts of one client on all replicas together; another client has five of its own.
	var codes []int
	for i := range 9 {
		codes = append(codes, at(i, "192.0.2.2").login(rootName, "wrong"))
	}
	if want := []int{401, 401, 401, 401, 401, 429, 429, 429, 429}; !slices.Equal(codes, want) {
		t.Errorf("attempts over all replicas: %v, want %v", codes, want)
	}
	if status := at(2, "192.0.2.3").login(rootName, rootPassword); status != http.StatusOK {
		t.Errorf("another client: %d", status)
	}
}

func TestNoReplicaServesWhatAnotherEndedForLongerThanASecond(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--login-rate", "off")
	root := &visitor{url: c.replicas[0].url, address: "192.0.2.1"}
	for what, end := range map[string]struct {
		ends func(v *visitor, authority, user int64) int // with the session of the user, or of root
		want int
	}{
		"logout": {func(v *visitor, _, _ int64) int {
			status, _, _ := v.ask("POST", "/api/v1/auth/logout", object{"refresh_token": v.refresh})
			return status
		}, http.StatusNoContent},
		"deactivation": {func(_ *visitor, _, user int64) int {
			status, _, _ := root.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", user), object{"is_active": false})
			return status
		}, http.StatusOK},
		"the deletion of the CA": {func(_ *visitor, authority, _ int64) int {
			status, _, _ := root.ask("DELETE", fmt.Sprintf("/api/v1/cas/%d", authority), nil)
			return status
		}, http.StatusNoContent},
	} {
		if status := root.login(rootName, rootPassword); status != http.StatusOK {
			t.Fatalf("log in: %d", status)
		}
		name := strings.ReplaceAll(what, " ", "-")
		authority := c.replicas[0].createCA(name)
		user := id(c.replicas[0].must(http.StatusCreated, "POST", "/api/v1/users/", object{
			"username": name, "email": name + "@example.com", "password": "correct horse", "role": "superuser"}))
		v := &visitor{url: c.replicas[0].url, address: "192.0.2.1"}
		if status := v.login(name, "correct horse"); status != http.StatusOK {
			t.Fatalf("log in: %d", status)
		}
		request := object{"ca_id": authority, "certificate_type": "server", "csr": csr(t, "www.example.com")}
		served := make([]time.Time, len(c.replicas)) // when the last request began that was served
		stop := make(chan struct{})
		var asking sync.WaitGroup
		var warm sync.WaitGroup
		warm.Add(len(c.replicas))
		for i, r := range c.replicas {
			here := &visitor{url: r.url, address: v.address, access: v.access}
			asking.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					began := time.Now()
					if status, _, _ := here.ask("POST", "/api/v1/certificates/sign-csr", request); status == http.StatusCreated {
						served[i] = began
					}
					if n == 3 {
						warm.Done()
					}
				}
			})
		}
		warm.Wait()
		if status := end.ends(v, authority, user); status != end.want {
			t.Fatalf("%s: %d", what, status)
		}
		ended := time.Now()
		time.Sleep(2 * time.Second)
		close(stop)
		asking.Wait()
		for i, last := range served {
			if last.IsZero() {
				t.Errorf("%s: replica %d served nothing", what, i)
			}
			if late := last.Sub(ended); late > time.Second {
				t.Errorf("%s: replica %d served a request that began %s later", what, i, late)
			}
		}
	}
}
