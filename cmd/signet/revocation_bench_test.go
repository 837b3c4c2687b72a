package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ocsp"
)

// benchShards keeps the lists of a million revoked certificates at about 1 MB each.
const benchShards = 32

// BenchmarkRevocation is a CA on PostgreSQL with so many revoked certificates: what a revocation costs, how soon relying
// parties see it, and what the server needs to build its lists. One operation is one revocation.
func BenchmarkRevocation(b *testing.B) {
	for _, revoked := range []int{10_000, 100_000, 1_000_000} {
		for _, shards := range []int{benchShards, 0} {
			r := newSite(b, "postgres").withRevoked(b, revoked, shards)
			b.Run(fmt.Sprintf("revoked=%d/shards=%d", revoked, shards), func(b *testing.B) { r.revokeMany(b) })
			r.stop(syscall.SIGKILL)
		}
	}
}

// crowd is a server with a CA that has revoked many certificates.
type crowd struct {
	*running
	authority int64
	issuer    *x509.Certificate
	build     time.Duration // of all its lists
	bytes     int           // of them
}

// withRevoked fills the database, as so many requests would have, and waits until every list is published.
func (s *site) withRevoked(b *testing.B, revoked, shards int) *crowd {
	b.Helper()
	r := s.start("signet")
	r.firstUser()
	c := &crowd{running: r, authority: r.createCA("Bench")}
	c.issuer = r.caCertificate(c.authority)
	r.must(http.StatusOK, "PUT", fmt.Sprintf("/api/v1/cas/%d/revocation-policy", c.authority), object{"crl_shards": shards})
	model := r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": c.authority, "certificate_type": "server", "csr": csr(b, "model.example.com")})

	db, err := pgx.Connect(context.Background(), s.url)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close(context.Background())
	c.resetPeak(b)
	start := time.Now()
	for _, statement := range fill {
		arguments := pgx.NamedArgs{"model": id(model), "ca": c.authority, "n": revoked, "shards": shards}
		if _, err := db.Exec(context.Background(), statement, arguments); err != nil {
			b.Fatalf("%v in %s", err, statement)
		}
	}
	b.Logf("%d certificates inserted in %s", revoked, time.Since(start).Round(time.Second))

	start = time.Now()
	total := 0
	for deadline := start.Add(5 * time.Minute); total < revoked; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("the lists have %d of %d entries:\n%s", total, revoked, r.stderr)
		}
		total, c.bytes = c.published(b, db)
	}
	c.build = time.Since(start)
	return c
}

// fill makes revoked certificates out of one model.
var fill = []string{
	`INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
		serial, der, not_before, not_after, state, revoked_at, revocation_reason, created_at, updated_at, crl_shard, names)
	SELECT issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
		'1' || substr(md5(i::text), 1, 31), der, not_before, not_after, 'revoked', now(), 4, created_at, updated_at,
		CASE WHEN @shards::integer = 0 THEN 0 ELSE 1 + i % @shards::integer END, names
	FROM certificates, generate_series(1, @n::integer) AS i WHERE id = @model::bigint`,
	`INSERT INTO revocations (ca_id, serial, shard, sequence, revoked_at, reason, not_after)
	SELECT @ca::bigint, '1' || substr(md5(i::text), 1, 31), CASE WHEN @shards::integer = 0 THEN 0 ELSE 1 + i % @shards::integer END,
		i, c.revoked_at, 4, c.not_after
	FROM generate_series(1, @n::integer) AS i JOIN certificates c ON c.issuer_id = @ca::bigint AND c.serial = '1' || substr(md5(i::text), 1, 31)`,
	`UPDATE revocation_state SET sequence = @n::integer WHERE ca_id = @ca::bigint`,
	`UPDATE crl_scopes SET sequence = @n::integer WHERE ca_id = @ca::bigint AND (shard > 0 OR @shards::integer = 0)`,
	`ANALYZE`,
}

// published counts the entries and octets of the current lists.
func (c *crowd) published(b *testing.B, db *pgx.Conn) (entries, octets int) {
	b.Helper()
	err := db.QueryRow(context.Background(), `
		SELECT coalesce(sum(entries), 0), coalesce(sum(size), 0) FROM crls l
		WHERE ca_id = $1 AND state = 'published' AND NOT EXISTS (
			SELECT 1 FROM crls n WHERE n.ca_id = l.ca_id AND n.shard = l.shard AND n.state = 'published' AND n.number > l.number)`,
		c.authority).Scan(&entries, &octets)
	if err != nil {
		b.Fatal(err)
	}
	return entries, octets
}

func (c *crowd) revokeMany(b *testing.B) {
	answered, inOCSP, inList := make([]time.Duration, b.N), make([]time.Duration, b.N), make([]time.Duration, b.N)
	for i := range b.N {
		o := c.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
			"ca_id": c.authority, "certificate_type": "server", "csr": csr(b, "revoke.example.com")})
		leaf := parseCertificate(b, o["certificate"])
		if status := c.ocsp(b, leaf); status != ocsp.Good { // an answer that must go
			b.Fatalf("OCSP status %d before the revocation", status)
		}
		start := time.Now()
		c.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(o)), object{"reason": "keyCompromise"})
		answered[i] = time.Since(start)
		for c.ocsp(b, leaf) != ocsp.Revoked {
			c.patient(b, start)
		}
		inOCSP[i] = time.Since(start)
		for !c.listed(b, leaf) {
			c.patient(b, start)
		}
		inList[i] = time.Since(start)
	}
	for name, all := range map[string][]time.Duration{"revoke": answered, "ocsp": inOCSP, "crl": inList} {
		slices.Sort(all)
		b.ReportMetric(milliseconds(all[len(all)/2]), name+"-p50-ms")
		b.ReportMetric(milliseconds(all[len(all)-1]), name+"-max-ms")
	}
	b.ReportMetric(float64(c.build.Milliseconds())/1000, "build-s")
	b.ReportMetric(float64(c.bytes)/1e6, "lists-MB")
	b.ReportMetric(c.peak(b), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// patient waits a moment, but not for ever.
func (c *crowd) patient(b *testing.B, since time.Time) {
	b.Helper()
	if time.Since(since) > 30*time.Second {
		b.Fatalf("the revocation is not seen after %s:\n%s", time.Since(since), c.stderr)
	}
	time.Sleep(2 * time.Millisecond)
}

// ocsp asks the URL in the certificate for its status.
func (c *crowd) ocsp(b *testing.B, leaf *x509.Certificate) int {
	b.Helper()
	request, err := ocsp.CreateRequest(leaf, c.issuer, nil)
	if err != nil {
		b.Fatal(err)
	}
	answer, err := ocsp.ParseResponseForCert(c.post(b, leaf.OCSPServer[0], "application/ocsp-request", request), leaf, c.issuer)
	if err != nil {
		b.Fatalf("OCSP: %v", err)
	}
	return answer.Status
}

func (c *crowd) post(b *testing.B, url, contentType string, body []byte) []byte {
	b.Helper()
	response, err := c.http.Post(url, contentType, bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(response.Body); err != nil || response.StatusCode != http.StatusOK {
		b.Fatalf("POST %s: status %d, %v", url, response.StatusCode, err)
	}
	return answer.Bytes()
}

// listed reports whether the list that the certificate names has it. The serial number is looked for as octets: parsing a
// million entries would be what is measured.
func (c *crowd) listed(b *testing.B, leaf *x509.Certificate) bool {
	b.Helper()
	list := c.raw(http.StatusOK, "GET", strings.TrimPrefix(leaf.CRLDistributionPoints[0], c.url), nil)
	return bytes.Contains(list, leaf.SerialNumber.Bytes())
}
