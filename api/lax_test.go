package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/gorilla/mux"

	"signet/api/wire"
	"signet/fault"
)

var loaded = sync.OnceValues(Specification)

// reading makes the request to an operation of the contract as its handler sees it.
func reading(t testing.TB, method, path string, r *http.Request) *request {
	t.Helper()
	doc, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, maxBody)
	return &request{Request: r, operation: operationOf(doc, method, path)}
}

func readingBody(t testing.TB, method, path, contentType, body string) *request {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return reading(t, method, path, r)
}

// told words the problems of an error: "type loc: input".
func told(t testing.TB, err error) []string {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.Unprocessable {
		t.Fatalf("error %v, want Unprocessable", err)
	}
	var out []string
	for _, field := range f.Fields {
		input, err := json.Marshal(field.Input)
		if err != nil {
			t.Fatal(err)
		}
		loc := make([]string, len(field.Loc))
		for i, l := range field.Loc {
			loc[i] = fmt.Sprint(l)
		}
		out = append(out, fmt.Sprintf("%s %s: %s", field.Type, strings.Join(loc, "."), input))
	}
	return out
}

func TestAMalformedBodyIsRefusedWithEveryReason(t *testing.T) {
	t.Parallel()
	const jsonType = "application/json"
	ca := func(fields string) string { return `{"name":"A","subject_dn":"CN=A"` + fields + `}` }
	for _, row := range []struct {
		name, contentType, body string
		want                    []string
	}{
		{"empty", jsonType, "", []string{`missing body: null`}},
		{"spaces", jsonType, " \n", []string{`missing body: null`}},
		{"null", jsonType, "null", []string{`model_attributes_type body: null`}},
		{"list", jsonType, "[1]", []string{`model_attributes_type body: null`}},
		{"text", jsonType, `"secret"`, []string{`model_attributes_type body: null`}},
		{"cut off", jsonType, `{"name":`, []string{`json_invalid body.8: {}`}},
		{"not JSON", jsonType, `name=A`, []string{`json_invalid body.1: {}`}},
		{"two values", jsonType, `{} {}`, []string{`json_invalid body.4: {}`}},
		{"NaN", jsonType, ca(`,"key_size":NaN`), []string{`json_invalid body.43: {}`}},
		{"not UTF-8", jsonType, "{\"name\":\"\xff\"}", []string{`json_invalid body.12: {}`}},
		{"nested beyond reason", jsonType, strings.Repeat("[", 20000), []string{`json_invalid body.10000: {}`}},
		{"form", "application/x-www-form-urlencoded", ca(""), []string{`model_attributes_type body: null`}},
		{"text type", "text/plain", ca(""), []string{`model_attributes_type body: null`}},
		{"broken type", ";", ca(""), []string{`model_attributes_type body: null`}},

		{"missing", jsonType, `{"description":"d"}`, []string{`missing body.name: {"description":"d"}`, `missing body.subject_dn: {"description":"d"}`}},
		{"null where something is required", jsonType, `{"name":null,"subject_dn":"CN=A"}`, []string{`string_type body.name: null`}},
		{"number for text", jsonType, `{"name":1,"subject_dn":"CN=A"}`, []string{`string_type body.name: 1`}},
		{"NUL", jsonType, `{"name":"a\u0000b","subject_dn":"CN=A"}`, []string{`value_error body.name: "a\u0000b"`}},
		{"too long", jsonType, `{"name":"` + strings.Repeat("ü", 256) + `","subject_dn":"CN=A"}`, []string{`string_too_long body.name: "` + strings.Repeat("ü", 200) + `…"`}},
		{"words for an integer", jsonType, ca(`,"key_size":"big"`), []string{`int_parsing body.key_size: "big"`}},
		{"empty text for an integer", jsonType, ca(`,"key_size":""`), []string{`int_parsing body.key_size: ""`}},
		{"hexadecimal", jsonType, ca(`,"key_size":"0x800"`), []string{`int_parsing body.key_size: "0x800"`}},
		{"half a day", jsonType, ca(`,"valid_days":1.5`), []string{`int_from_float body.valid_days: 1.5`}},
		{"beyond 64 bits", jsonType, ca(`,"parent_ca_id":9223372036854775808`), []string{`int_parsing_size body.parent_ca_id: 9223372036854775808`}},
		{"beyond 64 bits as text", jsonType, ca(`,"parent_ca_id":"99999999999999999999"`), []string{`int_parsing_size body.parent_ca_id: "99999999999999999999"`}},
		{"exponent beyond floats", jsonType, ca(`,"parent_ca_id":1e999999999`), []string{`int_parsing_size body.parent_ca_id: 1e999999999`}},
		{"list for an integer", jsonType, ca(`,"key_size":[2048]`), []string{`int_type body.key_size: [2048]`}},
		{"truth for an integer", jsonType, ca(`,"key_size":true`), []string{`int_type body.key_size: true`}},
		{"no days", jsonType, ca(`,"valid_days":0`), []string{`greater_than_equal body.valid_days: 0`}},
		{"too many days", jsonType, ca(`,"valid_days":"36501"`), []string{`less_than_equal body.valid_days: "36501"`}},
		{"negative path length", jsonType, ca(`,"path_length":-1`), []string{`greater_than_equal body.path_length: -1`}},
		{"unknown value", jsonType, ca(`,"key_type":"dsa"`), []string{`enum body.key_type: "dsa"`}},
		{"list for a value", jsonType, ca(`,"key_type":["rsa"]`), []string{`enum body.key_type: ["rsa"]`}},
		{"maybe", jsonType, ca(`,"allow_leaf_certs":"maybe"`), []string{`bool_parsing body.allow_leaf_certs: "maybe"`}},
		{"two is no truth", jsonType, ca(`,"allow_leaf_certs":2`), []string{`bool_parsing body.allow_leaf_certs: 2`}},
		{"object for a truth", jsonType, ca(`,"allow_leaf_certs":{}`), []string{`bool_type body.allow_leaf_certs: {}`}},
		{"everything at once", jsonType, `{"name":[],"key_size":"x","valid_days":-1}`,
			[]string{`int_parsing body.key_size: "x"`, `string_type body.name: []`, `missing body.subject_dn: {"key_size":"x","name":[],"valid_days":-1}`, `greater_than_equal body.valid_days: -1`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := readingBody(t, "POST", "/api/v1/cas/", row.contentType, row.body)
			var body wire.CACreate
			r.body(&body)
			if got := told(t, r.err()); !slices.Equal(got, row.want) {
				t.Errorf("problems\n%q, want\n%q", got, row.want)
			}
		})
	}
}

func TestListsAreCheckedItemByItem(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`"a.example"`:     `list_type body.san_dns_names: "a.example"`,
		`["a.example",7]`: `string_type body.san_dns_names.1: 7`,
		`[null]`:          `string_type body.san_dns_names.0: null`,
		`["a.example","` + strings.Repeat("a", 1025) + `"]`: `string_too_long body.san_dns_names.1: "` + strings.Repeat("a", 200) + `…"`,
		`[` + strings.Repeat(`"a",`, 1000) + `"a"]`:         `too_long body.san_dns_names: ["a"` + strings.Repeat(`,"a"`, 19) + `]`,
	} {
		r := readingBody(t, "POST", "/api/v1/certificates/", "application/json",
			`{"common_name":"a","subject_dn":"CN=a","certificate_type":"server","san_dns_names":`+body+`}`)
		var into wire.CertificateCreate
		r.body(&into)
		if got := told(t, r.err()); len(got) != 1 || got[0] != want {
			t.Errorf("problems %q, want %q", got, want)
		}
	}
}

func TestWhatCanOnlyMeanOneThingIsAccepted(t *testing.T) {
	t.Parallel()
	r := readingBody(t, "POST", "/api/v1/cas/", "application/vnd.api+json; charset=utf-8", `{
		"name": "first", "name": "A", "subject_dn": "CN=A", "unknown": {"deep": [1]}, "description": null,
		"key_size": " 4096 ", "valid_days": 365.0, "path_length": "1.0", "parent_ca_id": 1e2, "allow_leaf_certs": "On"}`)
	var got wire.CACreate
	r.body(&got)
	if err := r.err(); err != nil {
		t.Fatal(err)
	}
	size, days, length, parent, allow := 4096, 365, 1, int64(100), true
	want := wire.CACreate{Name: "A", SubjectDN: "CN=A", KeySize: &size, ValidDays: &days, PathLength: &length, ParentCAID: &parent, AllowLeafCerts: &allow}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	r := readingBody(t, "POST", "/api/v1/cas/", "", `{"name":"A","subject_dn":"CN=A","valid_days":null}`)
	var got wire.CACreate
	r.body(&got)
	if err := r.err(); err != nil || or(got.ValidDays, 0) != 3650 || got.KeySize != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestInAPatchNullIsAbsence(t *testing.T) {
	t.Parallel()
	seven := int64(7)
	for body, want := range map[string]wire.UserPatch{
		`{}`: {},
		`{"email":null,"password":null,"role":null,"is_active":null,"organization_id":null,"can_create_ca":null}`: {},
		`{"organization_id": "7"}`:   {OrganizationID: &seven},
		`{"organization_id": 7e0  }`: {OrganizationID: &seven},
	} {
		r := readingBody(t, "PATCH", "/api/v1/users/{user_id}", "application/json", body)
		var patch wire.UserPatch
		r.body(&patch)
		if err := r.err(); err != nil || !reflect.DeepEqual(patch, want) {
			t.Errorf("%s: got %+v, %v", body, patch, err)
		}
	}
}

func TestNoTextIsWithoutLimit(t *testing.T) {
	t.Parallel()
	doc, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	var limited func(where string, s *openapi3.Schema)
	limited = func(where string, s *openapi3.Schema) {
		for name, property := range s.Properties {
			limited(where+" "+name, property.Value)
		}
		if s.Items != nil {
			limited(where+" items", s.Items.Value)
		}
		if s.Type.Is(openapi3.TypeString) && s.MaxLength == nil && len(s.Enum) == 0 && !secret(s) {
			t.Errorf("%s: a text without maxLength", where)
		}
		if s.Type.Is(openapi3.TypeArray) && s.MaxItems == nil {
			t.Errorf("%s: a list without maxItems", where)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			o := operationOf(doc, method, path)
			// What is sent to log in is compared and not kept, and too long is just as wrong as any other.
			if o.body != nil && path != "/api/v1/auth/token" {
				limited(method+" "+path, o.body)
			}
			for _, p := range o.parameters {
				if p.Value.In == "query" {
					limited(method+" "+path+" "+p.Value.Name, p.Value.Schema.Value)
				}
			}
		}
	}
}

func TestSecretsAreNotEchoed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ method, path, body string }{
		{"POST", "/api/v1/users/", `{"password":"hunter2"}`},
		{"POST", "/api/v1/users/", `{"username":"a","email":"b@example.com","password":["hunter2"]}`},
		{"POST", "/api/v1/users/", `{"pasword":"hunter2-hunter2"}`},
		{"POST", "/api/v1/users/", `"hunter2"`},
		{"PATCH", "/api/v1/users/{user_id}", `{"password":"hunter2"}`},
		{"POST", "/api/v1/auth/refresh", `{"refresh_token":["hunter2"]}`},
		{"POST", "/api/v1/auth/refresh", `{"token":"hunter2"}`},
	} {
		r := readingBody(t, row.method, row.path, "application/json", row.body)
		var into map[string]any
		r.body(&into)
		if got := strings.Join(told(t, r.err()), "\n"); strings.Contains(got, "hunter2") {
			t.Errorf("%s %s: the answer to %s holds the secret:\n%s", row.method, row.path, row.body, got)
		}
	}
}

func TestPathIDs(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"1": "", "-1": "", "0": "", "9223372036854775807": "",
		"one":                 `int_parsing path.ca_id: "one"`,
		"1.5":                 `int_parsing path.ca_id: "1.5"`,
		"9223372036854775808": `int_parsing_size path.ca_id: "9223372036854775808"`,
	} {
		r := reading(t, "GET", "/api/v1/cas/{ca_id}", mux.SetURLVars(httptest.NewRequest("GET", "/", nil), map[string]string{"ca_id": id}))
		r.id("ca_id")
		if err := r.err(); want == "" && err != nil || want != "" && told(t, err)[0] != want {
			t.Errorf("id %q: %v, want %q", id, err, want)
		}
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"":                                    "",
		"limit=5&unknown=x":                   "",
		"limit=x&limit=5":                     "",
		"limit=0":                             `greater_than_equal query.limit: "0"`,
		"limit=1001":                          `less_than_equal query.limit: "1001"`,
		"limit=":                              `int_parsing query.limit: ""`,
		"skip=-1":                             `greater_than_equal query.skip: "-1"`,
		"action=ca_destroy":                   `enum query.action: "ca_destroy"`,
		"action=ca_create":                    "",
		"resource_type=a%00b":                 `value_error query.resource_type: "a\u0000b"`,
		"user_id=me":                          `int_parsing query.user_id: "me"`,
		"since=yesterday":                     `datetime_from_date_parsing query.since: "yesterday"`,
		"since=2026-02-30":                    `datetime_from_date_parsing query.since: "2026-02-30"`,
		"since=2026-02-03":                    "",
		"until=2026-02-03T04:05":              "",
		"since=2026-02-03T04:05:06.7%2B02:00": "",
		"cursor=MS4x":                         "",
		"cursor=MS4x%3D":                      `value_error query.cursor: "MS4x="`,
		"cursor=MS4wMQ":                       `value_error query.cursor: "MS4wMQ"`,
		"cursor=nonsense":                     `value_error query.cursor: "nonsense"`,
	} {
		r := reading(t, "GET", "/api/v1/audit-logs/", httptest.NewRequest("GET", "/?"+query, nil))
		var into wire.ListAuditLogsParams
		r.query(&into)
		r.page(into.Skip, into.Limit, into.Cursor)
		r.moment("since", into.Since)
		r.moment("until", into.Until)
		if err := r.err(); want == "" && err != nil || want != "" && told(t, err)[0] != want {
			t.Errorf("query %q: %v, want %q", query, err, want)
		}
		if want == "" && (or(into.Limit, 0) == 0 || into.Skip == nil) {
			t.Errorf("query %q: no default for limit or skip", query)
		}
	}
}

func TestBaseURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://pki.example":           "http://pki.example",
		"https://pki.example:8443/x//": "https://pki.example:8443/x",
		"http://[2001:db8::1]:80/":     "http://[2001:db8::1]:80",
		"http://pki.example/a%20b":     "http://pki.example/a%20b",
		"pki.example":                  "",
		"//pki.example":                "",
		"ftp://pki.example":            "",
		"http://":                      "",
		"http://:80":                   "",
		"http://pki.example:":          "",
		"http://pki.example:0":         "",
		"http://pki.example:70000":     "",
		"http://user@pki.example":      "",
		"http://pki.example?":          "",
		"http://pki.example/?a=b":      "",
		"http://pki.example/#":         "",
		"http://zürich.example":        "",
		"http://pki example":           "",
		"http://pki.example/a b":       "",
		"http://pki.example\n/":        "",
		"http://pki_.example;x":        "",
		"http://[fe80::1%25eth0]":      "",
		"http://-pki.example":          "",
		"javascript:alert(1)":          "",
		"http://pki.example/<script>":  "",
		"http:pki.example":             "",
	} {
		got, reason := parseBaseURL(url)
		if got != want || (reason == "") != (want != "") {
			t.Errorf("parseBaseURL(%q) = %q, %q; want %q", url, got, reason, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"name":"A","subject_dn":"CN=A"}`, `{"name":"A","subject_dn":"CN=A","key_size":"2048","path_length":1e0}`, `{"name":1}`, `[[[]]]`, `{`, "", "\xff",
		`{"name":"A","name":null}`, `{"valid_days":1e400}`, `{"allow_leaf_certs":"yes","key_type":{"a":[{}]}}`,
	} {
		f.Add([]byte(seed))
	}
	doc, err := loaded()
	if err != nil {
		f.Fatal(err)
	}
	op := operationOf(doc, "POST", "/api/v1/cas/")
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &request{Request: httptest.NewRequest("POST", "/", bytes.NewReader(data)), operation: op}
		var body wire.CACreate
		r.body(&body)
		err := r.err()
		if err == nil {
			if len(bytes.TrimSpace(data)) == 0 || or(body.ValidDays, 0) < 1 {
				t.Fatalf("accepted %q as %+v", data, body)
			}
			return
		}
		if len(told(t, err)) == 0 { // any other failure than a malformed request is a defect
			t.Fatal("refused without a reason")
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "limit=1&skip=0", "limit=-1", "cursor=MS4x", "since=2026-01-01&until=x", "action=ca_create&user_id=%31", "%zz", "a=%00"} {
		f.Add(seed)
	}
	doc, err := loaded()
	if err != nil {
		f.Fatal(err)
	}
	op := operationOf(doc, "GET", "/api/v1/audit-logs/")
	f.Fuzz(func(t *testing.T, query string) {
		r := &request{Request: &http.Request{URL: &url.URL{RawQuery: query}}, operation: op}
		var into wire.ListAuditLogsParams
		r.query(&into)
		p := r.page(into.Skip, into.Limit, into.Cursor)
		r.moment("since", into.Since)
		if err := r.err(); err != nil {
			told(t, err)
			return
		}
		if p.limit < 1 || p.limit > 1000 || p.skip < 0 || p.cursor < 0 {
			t.Fatalf("query %q gives page %+v", query, p)
		}
	})
}
