package main

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestContractTimePasses(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, database)
			root := w.root(t)
			authority := root.ca(w.unique("time"), object{"valid_days": 30}).want(http.StatusCreated)
			brief := root.ca(w.unique("brief"), object{"valid_days": 2}).want(http.StatusCreated)
			issue := func(days int) answer {
				return root.sign(authority.id(), csr(t, "time.example"), "server", object{"valid_days": days}).want(http.StatusCreated)
			}
			short, long, shortRevoked, longRevoked := issue(1), issue(20), issue(1), issue(20)
			for _, a := range []answer{shortRevoked, longRevoked} {
				root.revoke(a.id(), "").want(http.StatusOK)
			}
			before, lapsed := root.publishedWith(authority, 2), w.member(t, "user", 0, nil)
			w.server.stop(syscall.SIGTERM)

			// Eight days later: the list of before has lapsed, and so have the short certificates.
			w.server = w.site.start("signet-crash", crashClock+"=192h")
			w.access = w.nobody(t).logIn(rootName, rootPassword).access
			root = w.root(t)
			for status, certificates := range map[string][]answer{"expired": {short}, "valid": {long}, "revoked": {shortRevoked, longRevoked}} {
				for _, c := range certificates {
					t.Run(fmt.Sprintf("the status of certificate %d is %s", c.id(), status), func(t *testing.T) {
						expect(t, w.root(t).ask("GET", fmt.Sprintf("/api/v1/certificates/%d", c.id()), nil).object(), object{"status": status})
					})
				}
			}
			t.Run("a CRL is re-signed on schedule, and later without expired entries", func(t *testing.T) {
				scheduledCRL(t, w, authority, before, shortRevoked, longRevoked, long)
			})
			t.Run("an expired CA issues nothing, and its certificate stays served", func(t *testing.T) {
				p := w.root(t)
				p.issue(brief.id(), "late.example", "server", nil).refused(http.StatusBadRequest, "")
				p.sign(brief.id(), csr(t, "late.example"), "server", nil).refused(http.StatusBadRequest, "")
				p.ca(w.unique("late"), object{"parent_ca_id": brief.id()}).refused(http.StatusBadRequest, "")
				expect(t, p.ask("GET", fmt.Sprintf("/api/v1/cas/%d", brief.id()), nil).object(), object{"status": "expired"})
				w.nobody(t).ask("GET", "/ca/"+slugOf(brief)+".crt", nil).want(http.StatusOK)
			})
			t.Run("an expired certificate can still be listed and revoked once", func(t *testing.T) {
				p := w.root(t)
				if list := ids(p.ask("GET", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority.id()), nil).list()); !slices.Contains(list, short.id()) {
					t.Errorf("the list %v lacks the expired certificate %d", list, short.id())
				}
				p.revoke(short.id(), "").want(http.StatusOK)
				p.revoke(short.id(), "").refused(http.StatusConflict, "Certificate is already revoked")
			})
			t.Run("access and refresh tokens of before are over", func(t *testing.T) {
				old := w.nobody(t)
				old.access, old.refresh = lapsed.access, lapsed.refresh
				sessionEnded(t, old)
			})
		})
	}
}

// scheduledCRL waits for the list after before, and makes one more by revoking another certificate.
func scheduledCRL(t *testing.T, w *world, authority answer, before *x509.RevocationList, shortRevoked, longRevoked, long answer) {
	t.Helper()
	p := w.root(t)
	list := p.published(authority)
	for deadline := time.Now().Add(30 * time.Second); list.Number.Cmp(before.Number) <= 0 && time.Now().Before(deadline); list = p.published(authority) {
		time.Sleep(50 * time.Millisecond)
	}
	if list.Number.Cmp(before.Number) <= 0 || !list.NextUpdate.After(time.Now().Add(192*time.Hour)) {
		t.Errorf("number %s after %s, next update %s", list.Number, before.Number, list.NextUpdate)
	}
	// The first list after its end still has a certificate (RFC 5280, section 3.3), the second has not.
	equalSlices(t, "first", revokedSerials(list), sorted(shortRevoked, longRevoked))
	p.revoke(long.id(), "").want(http.StatusOK)
	for deadline := time.Now().Add(30 * time.Second); list.Number.Cmp(p.published(authority).Number) == 0 && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	equalSlices(t, "second", revokedSerials(p.published(authority)), sorted(longRevoked, long))
}

// sorted are the serials of certificates, in the order of revokedSerials.
func sorted(certificates ...answer) []string {
	var all []string
	for _, c := range certificates {
		all = append(all, c.object()["serial_number"].(string))
	}
	slices.Sort(all)
	return all
}
