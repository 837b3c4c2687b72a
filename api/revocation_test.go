package api_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// crl reads a list and holds its signature against the CA.
func (c *caller) crl(path string, issuer any) *x509.RevocationList {
	c.t.Helper()
	list, err := x509.ParseRevocationList(c.nobody().call(http.StatusOK, "GET", path, nil).body)
	if err != nil {
		c.t.Fatalf("%s: %v", path, err)
	}
	if err := list.CheckSignatureFrom(parsed(c.t, issuer)); err != nil {
		c.t.Errorf("%s: %v", path, err)
	}
	return list
}

// reasons are the reason codes of a list by serial number.
func reasons(list *x509.RevocationList) map[string]int {
	out := map[string]int{}
	for _, e := range list.RevokedCertificateEntries {
		out[e.SerialNumber.Text(16)] = e.ReasonCode
	}
	return out
}

func TestARevocationShowsWhyAndSinceWhen(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	authority := root.authority("Root", nil)
	leaf := root.certificate(idOf(authority), "a.example.com", nil)
	for _, field := range []string{"revoked_at", "revocation_reason", "revocation_text", "invalidity_date"} {
		if v, ok := leaf[field]; !ok || v != nil {
			t.Errorf("%s of a valid certificate is %v", field, v)
		}
	}
	at := path("/certificates/%d/revoke", idOf(leaf))
	for _, row := range []struct {
		name   string
		body   object
		status int
	}{
		{"a date that is none", object{"invalidity_date": "yesterday"}, 422},
		{"a number", object{"invalidity_date": 7}, 422},
		{"the future", object{"invalidity_date": time.Now().Add(time.Hour)}, 400},
		{"a reason that is none", object{"reason": "removeFromCRL"}, 400},
		{"a long reason", object{"reason": strings.Repeat("x", 1025)}, 422},
	} {
		if a := root.call(0, "POST", at, row.body); a.status != row.status {
			t.Errorf("%s: %d %s", row.name, a.status, a.body)
		}
	}
	revoked := root.call(http.StatusOK, "POST", at, object{"reason": "it was superseded", "invalidity_date": "2024-05-06T09:08:09+02:00"}).object(t)
	if revoked["status"] != "revoked" || revoked["revocation_reason"] != "superseded" || revoked["revocation_text"] != "it was superseded" ||
		revoked["invalidity_date"] != "2024-05-06T07:08:09Z" {
		t.Errorf("revoked %v", revoked)
	}
	if a := root.call(http.StatusConflict, "POST", at, nil); a.detail(t) != "Certificate is already revoked" {
		t.Errorf("revoked again: %s", a.body)
	}
	worse := root.call(http.StatusOK, "POST", at, object{"reason": "keyCompromise"}).object(t)
	if worse["revocation_reason"] != "keyCompromise" || worse["revoked_at"] != revoked["revoked_at"] {
		t.Errorf("a key compromise %v", worse)
	}
	root.call(http.StatusConflict, "POST", at, object{"reason": "superseded"})
	if got := root.get(path("/certificates/%d", idOf(leaf))); got["revocation_reason"] != "keyCompromise" {
		t.Errorf("read back %v", got)
	}
}

func TestAnIntermediateShowsWhyItWasRevoked(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	top := root.authority("Top", nil)
	sub := root.authority("Sub", object{"parent_ca_id": idOf(top)})
	at := path("/cas/%d/revoke", idOf(sub))
	root.call(http.StatusBadRequest, "POST", at, object{"reason": "certificateHold"})
	if o := root.call(http.StatusOK, "POST", at, object{"reason": "CA compromise", "invalidity_date": "2024-01-01"}).object(t); o["revocation_reason"] != "cACompromise" ||
		o["revocation_text"] != "CA compromise" || o["invalidity_date"] != "2024-01-01T00:00:00Z" || o["status"] != "revoked" {
		t.Errorf("revoked %v", o)
	}
	root.call(http.StatusBadRequest, "POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", idOf(sub)), object{
		"common_name": "a.example.com", "subject_dn": "CN=a.example.com", "certificate_type": "server", "key_type": "ec"})
	if got := reasons(root.crl(fmt.Sprintf("/crl/top-%d", idOf(top)), top["certificate"])); got[parsed(t, sub["certificate"]).SerialNumber.Text(16)] != 2 {
		t.Errorf("the list of its parent has %v", got)
	}
}

func TestAHoldIsReleased(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme := root.organization("Acme")
	admin := root.user("admin", object{"organization_id": acme, "role": "admin"})
	reader := root.user("reader", object{"organization_id": acme})
	authority := admin.authority("Root", nil)
	leaf := admin.certificate(idOf(authority), "a.example.com", nil)
	revoke, release := path("/certificates/%d/revoke", idOf(leaf)), path("/certificates/%d/release", idOf(leaf))
	list := fmt.Sprintf("/crl/root-%d", idOf(authority))

	if a := admin.call(http.StatusConflict, "POST", release, nil); a.detail(t) != "Certificate is not on hold" {
		t.Errorf("released what is valid: %s", a.body)
	}
	admin.call(http.StatusOK, "POST", revoke, object{"reason": "certificateHold"})
	if got := reasons(root.crl(list, authority["certificate"])); got[leaf["serial_number"].(string)] != 6 {
		t.Errorf("the list has %v", got)
	}
	reader.call(http.StatusForbidden, "POST", release, nil)
	root.nobody().call(http.StatusUnauthorized, "POST", release, nil)
	admin.call(http.StatusNotFound, "POST", path("/certificates/4711/release"), nil)
	admin.call(http.StatusUnprocessableEntity, "POST", path("/certificates/x/release"), nil)
	admin.call(http.StatusUnprocessableEntity, "POST", release, object{"reason": 7})
	if o := admin.call(http.StatusOK, "POST", release, object{"reason": "found it"}).object(t); o["status"] != "valid" || o["revoked_at"] != nil ||
		o["revocation_reason"] != nil || o["revocation_text"] != nil {
		t.Errorf("released %v", o)
	}
	admin.call(http.StatusConflict, "POST", release, nil)
	if entries := admin.list("/api/v1/audit-logs/?action=cert_release"); len(entries) != 1 || !strings.Contains(entries[0]["detail"].(string), "found it") {
		t.Errorf("audited %v", entries)
	}
	admin.call(http.StatusOK, "POST", revoke, object{"reason": "superseded"})
	if a := admin.call(http.StatusConflict, "POST", release, nil); a.detail(t) != "Certificate is not on hold" {
		t.Errorf("released what is final: %s", a.body)
	}
}

func TestTheRevocationPolicyOfACA(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme := root.organization("Acme")
	admin := root.user("admin", object{"organization_id": acme, "role": "admin"})
	reader := root.user("reader", object{"organization_id": acme})
	stranger := root.user("stranger", nil)
	at := path("/cas/%d/revocation-policy", idOf(admin.authority("Root", nil)))

	server := object{"crl_validity": "168h0m0s", "crl_refresh": "24h0m0s", "crl_overlap": "24h0m0s", "ocsp_validity": "24h0m0s"}
	for field, want := range (object{
		"crl_validity": nil, "crl_refresh": nil, "crl_overlap": nil, "crl_shards": 0.0, "crl_delta": false, "ocsp_validity": nil,
		"ocsp_responder_id": "key", "ocsp_presign": false, "outage": nil, "updated_at": nil, "effective": fmt.Sprint(server),
	}) {
		got := reader.get(at)[field]
		if field == "effective" {
			got = fmt.Sprint(got)
		}
		if got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}

	from, until := time.Now().Add(time.Hour).UTC().Truncate(time.Second), time.Now().Add(50*time.Hour).UTC().Truncate(time.Second)
	set := admin.call(http.StatusOK, "PUT", at, object{
		"crl_validity": "48h", "crl_refresh": "3600s", "crl_overlap": "6h", "crl_shards": "3", "crl_delta": true, "ocsp_validity": "1h30m",
		"ocsp_responder_id": "name", "ocsp_presign": true, "outage": object{"from": from, "until": until.Format("2006-01-02T15:04:05")},
	}).object(t)
	for field, want := range (object{
		"crl_validity": "48h0m0s", "crl_refresh": "1h0m0s", "crl_overlap": "6h0m0s", "crl_shards": 3.0, "crl_delta": true, "ocsp_validity": "1h30m0s",
		"ocsp_responder_id": "name", "ocsp_presign": true,
	}) {
		if set[field] != want {
			t.Errorf("%s is %v, want %v", field, set[field], want)
		}
	}
	if o, ok := set["outage"].(object); !ok || o["from"] != from.Format(time.RFC3339) || o["until"] != until.Format(time.RFC3339) || set["updated_at"] == nil {
		t.Errorf("set %v", set)
	}
	got := reader.get(at)
	delete(got, "updated_at") // the database has a clock of its own
	delete(set, "updated_at")
	if fmt.Sprint(got) != fmt.Sprint(set) {
		t.Errorf("read back %v, want %v", got, set)
	}
	for field, value := range got { // what was read can be sent back
		set[field] = value
	}
	if a := admin.call(0, "PUT", at, set); a.status != http.StatusOK {
		t.Errorf("sent back: %d %s", a.status, a.body)
	}
	again := admin.call(http.StatusOK, "PUT", at, object{"crl_shards": 5}).object(t)
	if again["crl_shards"] != 5.0 || again["crl_validity"] != nil || again["crl_delta"] != false || again["ocsp_responder_id"] != "key" || again["outage"] != nil ||
		fmt.Sprint(again["effective"]) != fmt.Sprint(server) {
		t.Errorf("replaced by %v", again)
	}

	for _, row := range []struct {
		name   string
		body   any
		status int
	}{
		{"nothing", nil, 422},
		{"no object", []int{}, 422},
		{"no time span", object{"crl_validity": "a week"}, 422},
		{"a number", object{"crl_validity": 7}, 422},
		{"half a second", object{"crl_validity": "48h0.5s"}, 422},
		{"zero", object{"crl_overlap": "0s"}, 422},
		{"backwards", object{"ocsp_validity": "-1h"}, 422},
		{"beyond what there is", object{"crl_validity": "99999999999h"}, 422},
		{"too short", object{"crl_validity": "1m"}, 400},
		{"overlap beyond validity", object{"crl_validity": "24h", "crl_overlap": "24h"}, 400},
		{"shards", object{"crl_shards": 1025}, 422},
		{"shards below 0", object{"crl_shards": -1}, 422},
		{"responder", object{"ocsp_responder_id": "nobody"}, 422},
		{"a field that there is not", object{"outtage": object{"from": from, "until": until}}, 422},
		{"half an outage", object{"outage": object{"from": from}}, 422},
		{"an outage at no time", object{"outage": object{"from": "now", "until": "later"}}, 422},
		{"an outage backwards", object{"outage": object{"from": until, "until": from}}, 400},
	} {
		if a := admin.call(0, "PUT", at, row.body); a.status != row.status {
			t.Errorf("%s: %d %s", row.name, a.status, a.body)
		}
	}
	reader.call(http.StatusForbidden, "PUT", at, object{})
	stranger.call(http.StatusForbidden, "GET", at, nil)
	root.nobody().call(http.StatusUnauthorized, "PUT", at, object{})
	admin.call(http.StatusNotFound, "GET", path("/cas/4711/revocation-policy"), nil)
	admin.call(http.StatusNotFound, "PUT", path("/cas/4711/revocation-policy"), object{})
	if entries := admin.list("/api/v1/audit-logs/?action=ca_set_revocation_policy"); len(entries) != 3 {
		t.Errorf("audited %v", entries)
	}
}

func TestWhatACAPublishedIsListed(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	authority := root.authority("Root", nil)
	id := idOf(authority)
	at, list := path("/cas/%d/crls", id), fmt.Sprintf("/crl/root-%d", id)
	root.crl(list, authority["certificate"])
	leaf := root.certificate(id, "a.example.com", nil)
	root.call(http.StatusOK, "POST", path("/certificates/%d/revoke", idOf(leaf)), object{"reason": "superseded"})
	served := root.nobody().call(http.StatusOK, "GET", list, nil).body
	sum := sha256.Sum256(served)

	all := root.list(at)
	newest := all[0]
	if len(all) < 2 || newest["number"] != float64(len(all)) || newest["shard"] != 0.0 || newest["delta"] != false || newest["base_number"] != nil ||
		newest["state"] != "published" || newest["entries"] != 1.0 || newest["size"] != float64(len(served)) || newest["sha256"] != hex.EncodeToString(sum[:]) ||
		newest["url"] != "http://pki.example"+list {
		t.Errorf("newest of %d: %v, want a list of %d octets with hash %x", len(all), newest, len(served), sum)
	}
	var numbers []float64
	for next := at + "?limit=1"; next != ""; {
		a := root.call(http.StatusOK, "GET", next, nil)
		if a.header.Get("X-Total-Count") != fmt.Sprint(len(all)) {
			t.Errorf("%s: total %q", next, a.header.Get("X-Total-Count"))
		}
		page := a.objects(t)
		numbers = append(numbers, page[0]["number"].(float64))
		next, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	if len(numbers) != len(all) || !slices.IsSortedFunc(numbers, func(a, b float64) int { return int(b - a) }) {
		t.Errorf("paged through %v", numbers)
	}
	stranger := root.user("stranger", nil)
	stranger.call(http.StatusForbidden, "GET", at, nil)
	root.nobody().call(http.StatusUnauthorized, "GET", at, nil)
	root.call(http.StatusNotFound, "GET", path("/cas/4711/crls"), nil)
	root.call(http.StatusUnprocessableEntity, "GET", at+"?cursor=x", nil)
}
