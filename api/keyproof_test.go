package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/evidence"
	"signet/fault"
)

func TestACAShowsItsTokenAndWhatItsKeyIsWorth(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	c := root.authority("Main", nil)
	for field, want := range map[string]any{"token": "main", "key_grade": "drilled", "key_locked": nil, "key_grade_accepted": nil} {
		if got, ok := c[field]; !ok || got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if c := root.authority("Spare", object{"token": "spare"}); c["token"] != "spare" {
		t.Errorf("token %v", c["token"])
	}
	body := func(more object) object {
		o := object{"name": "A", "subject_dn": "CN=A", "key_type": "ec"}
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	if a := root.call(http.StatusBadRequest, "POST", "/api/v1/cas/", body(object{"token": "nowhere"})); !strings.Contains(a.detail(t), "there is main, spare") {
		t.Errorf("unknown token: %s", a.body)
	}
	root.call(http.StatusUnprocessableEntity, "POST", "/api/v1/cas/", body(object{"accept_key_grade": "exportable"}))
	admin := root.user("admin", object{"organization_id": root.organization("Acme"), "role": "admin"})
	admin.call(http.StatusForbidden, "POST", "/api/v1/cas/", body(object{"accept_key_grade": "asserted"}))

	root.drills.Set(evidence.Yielded, nil)
	if a := admin.call(http.StatusConflict, "POST", "/api/v1/cas/", body(nil)); !strings.Contains(a.detail(t), "accept_key_grade") {
		t.Errorf("refused with %s", a.body)
	}
	accepted := root.create(http.StatusCreated, "/api/v1/cas/", body(object{"accept_key_grade": "asserted"}))
	if accepted["key_grade"] != "asserted" || accepted["key_grade_accepted"] != "asserted" || accepted["key_locked"] != nil {
		t.Errorf("accepted: %v", accepted)
	}
}

func TestADrillOnRequestLocksUntilTheGradeIsAccepted(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme := root.organization("Acme")
	admin := root.user("admin", object{"organization_id": acme, "role": "admin"})
	user := root.user("user", object{"organization_id": acme, "can_create_cert": true, "can_create_ca": true, "can_revoke_cert": true, "can_delete_ca": true})
	stranger := root.user("stranger", object{"role": "admin", "organization_id": root.organization("Rival")})
	id := idOf(admin.authority("Root", nil))
	for _, c := range []*caller{user, stranger} {
		c.call(http.StatusForbidden, "POST", path("/cas/%d/key-drill", id), nil)
	}
	root.drills.Set(evidence.Yielded, nil)
	d := admin.call(http.StatusOK, "POST", path("/cas/%d/key-drill", id), nil).object(t)
	if d["grade"] != "asserted" || d["trigger"] != "request" || d["conclusive"] != true || len(d["attacks"].([]any)) != 3 {
		t.Errorf("drill %v", d)
	}
	if a := admin.call(http.StatusConflict, "POST", path("/certificates/?ca_id=%d", id), object{
		"common_name": "a.example.com", "subject_dn": "CN=a.example.com", "certificate_type": "server", "key_type": "ec"}); !strings.HasPrefix(a.detail(t), "CA 1 is locked: ") {
		t.Errorf("issued: %s", a.body)
	}
	if o := user.get(path("/cas/%d", id)); !strings.Contains(o["key_locked"].(string), "wrap-CKM_AES_KEY_WRAP") {
		t.Errorf("locked: %v", o["key_locked"])
	}
	var triggers []string
	for _, d := range user.list(path("/cas/%d/key-drills", id)) {
		triggers = append(triggers, d["trigger"].(string))
	}
	if !slices.Equal(triggers, []string{"request", "create"}) {
		t.Errorf("drills %q", triggers)
	}
	stranger.call(http.StatusForbidden, "GET", path("/cas/%d/key-drills", id), nil)

	accept := object{"accept": "asserted", "reason": "it is in a locked room"}
	admin.call(http.StatusForbidden, "POST", path("/cas/%d/key-grade", id), accept)
	for _, wrong := range []object{{"accept": "exportable", "reason": "x"}, {"accept": "asserted"}, {"accept": "asserted", "reason": ""}, {}} {
		root.call(http.StatusUnprocessableEntity, "POST", path("/cas/%d/key-grade", id), wrong)
	}
	if o := root.call(http.StatusOK, "POST", path("/cas/%d/key-grade", id), accept).object(t); o["key_locked"] != nil || o["key_grade_accepted"] != "asserted" {
		t.Errorf("accepted: %v", o)
	}
	admin.certificate(id, "a.example.com", nil)
	if o := root.call(http.StatusOK, "POST", path("/cas/%d/key-grade", id), object{"accept": "drilled", "reason": "no more"}).object(t); o["key_locked"] == nil {
		t.Errorf("withdrawn: %v", o)
	}
	for _, action := range []string{"ca_key_drill", "ca_lock", "ca_unlock", "ca_key_accept"} {
		if len(root.list("/api/v1/audit-logs/?resource_type=ca&action="+action)) == 0 {
			t.Errorf("no %s in the trail", action)
		}
	}
	root.drills.Set("", &fault.Error{Code: fault.Unavailable, Message: "the signing token is not available", RetryAfter: time.Second, Err: errors.New("away")})
	if a := admin.call(http.StatusServiceUnavailable, "POST", path("/cas/%d/key-drill", id), nil); a.header.Get("Retry-After") == "" {
		t.Errorf("without a token: %v", a.header)
	}
	for _, door := range []string{"key-drill", "key-grade"} {
		root.call(http.StatusNotFound, "POST", path("/cas/4711/%s", door), accept)
	}
}

func TestEvidenceIsSignedForReaders(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme := root.organization("Acme")
	admin := root.user("admin", object{"organization_id": acme, "role": "admin"})
	reader := root.user("reader", object{"organization_id": acme})
	id := idOf(admin.authority("Root", nil))
	a := reader.call(http.StatusOK, "GET", path("/cas/%d/key-evidence?nonce=n-%%201", id), nil)
	if !json.Valid(a.body) || !strings.Contains(string(a.body), "n- 1") || a.header.Get("Content-Disposition") != "" {
		t.Errorf("%v %s", a.header, a.body)
	}
	a = reader.call(http.StatusOK, "GET", path("/cas/%d/key-evidence?format=der", id), nil)
	if a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("Content-Disposition") != "attachment; filename=ca_1_key_evidence.der" || len(a.body) == 0 {
		t.Errorf("%v", a.header)
	}
	for query, want := range map[string]string{
		"nonce=" + strings.Repeat("n", 65): "string_too_long query.nonce", "nonce=%C3%BC": "value_error query.nonce",
		"nonce=%0A": "value_error query.nonce", "format=xml": "enum query.format",
	} {
		if got := reader.call(http.StatusUnprocessableEntity, "GET", path("/cas/%d/key-evidence?%s", id, query), nil).problems(t); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %q", query, got)
		}
	}
	if entries := root.list("/api/v1/audit-logs/?action=ca_key_evidence"); len(entries) != 2 || entries[0]["username"] != "reader" {
		t.Errorf("audited %v", entries)
	}
	root.user("lone", nil).call(http.StatusForbidden, "GET", path("/cas/%d/key-evidence", id), nil)
	root.call(http.StatusNotFound, "GET", path("/cas/4711/key-evidence"), nil)
}
