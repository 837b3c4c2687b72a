package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCertificatesAreFoundByWhatIsKnownOfThem(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	ca := idOf(root.authority("Root", nil))
	short := root.certificate(ca, "short.example.com", object{"valid_days": 10})
	long := root.certificate(ca, "long.example.com", object{"san_dns_names": []string{"Other.example.org"}})
	gone := root.certificate(ca, "gone.example.com", nil)
	root.call(http.StatusOK, "POST", path("/certificates/%d/revoke", idOf(gone)), nil)
	serial := long["serial_number"].(string)
	var colons []string
	for digits := "00" + strings.Repeat("0", len(serial)%2) + serial; digits != ""; digits = digits[2:] {
		colons = append(colons, digits[:2])
	}
	soon := time.Now().Add(20 * 24 * time.Hour)

	for _, row := range []struct {
		name  string
		query url.Values
		want  []object
	}{
		{"everything", url.Values{}, []object{short, long, gone}},
		{"valid", url.Values{"status": {"valid"}}, []object{short, long}},
		{"revoked", url.Values{"status": {"revoked"}}, []object{gone}},
		{"expired", url.Values{"status": {"expired"}}, nil},
		{"about to expire", url.Values{"expires_before": {soon.Format(time.RFC3339)}}, []object{short}},
		{"by a date", url.Values{"expires_before": {soon.UTC().Format(time.DateOnly)}}, []object{short}},
		{"with an offset", url.Values{"expires_before": {soon.In(time.FixedZone("", 7200)).Format(time.RFC3339)}}, []object{short}},
		{"serial number", url.Values{"serial": {serial}}, []object{long}},
		{"in capitals", url.Values{"serial": {strings.ToUpper(serial)}}, []object{long}},
		{"as OpenSSL prints it", url.Values{"serial": {strings.Join(colons, ":")}}, []object{long}},
		{"with a prefix", url.Values{"serial": {" 0x" + serial}}, []object{long}},
		{"another one", url.Values{"serial": {serial[1:]}}, nil},
		{"part of a name", url.Values{"q": {"LONG.example"}}, []object{long}},
		{"an alternative name", url.Values{"q": {"other.EXAMPLE.org"}}, []object{long}},
		{"serial number as a query", url.Values{"q": {serial}}, []object{long}},
		{"no pattern", url.Values{"q": {"%.example.com"}}, nil},
		{"no query", url.Values{"q": {""}}, []object{short, long, gone}},
		{"both", url.Values{"q": {"example.com"}, "status": {"revoked"}, "ca_id": {fmt.Sprint(ca)}}, []object{gone}},
		{"of another CA", url.Values{"q": {"example.com"}, "ca_id": {"4711"}}, nil},
	} {
		a := root.call(http.StatusOK, "GET", "/api/v1/certificates/?"+row.query.Encode(), nil)
		var got, want []float64
		for _, o := range a.objects(t) {
			got = append(got, o["id"].(float64))
		}
		for _, o := range row.want {
			want = append(want, o["id"].(float64))
		}
		if !slices.Equal(got, want) || a.header.Get("X-Total-Count") != fmt.Sprint(len(want)) {
			t.Errorf("%s: certificates %v of %s, want %v", row.name, got, a.header.Get("X-Total-Count"), want)
		}
	}
	next := root.call(http.StatusOK, "GET", "/api/v1/certificates/?status=valid&limit=1", nil).header.Get("Link")
	if !strings.Contains(next, "status=valid") {
		t.Errorf("the next page is %q", next)
	}
}

func TestASearchForNothingThatThereIs(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	for query, want := range map[string]string{
		"status=broken":                 "enum query.status",
		"status=":                       "enum query.status",
		"expires_before=soon":           "datetime_from_date_parsing query.expires_before",
		"expires_before=2024-13-01":     "datetime_from_date_parsing query.expires_before",
		"serial=":                       "string_too_short query.serial",
		"serial=xyz":                    "value_error query.serial",
		"serial=-1":                     "value_error query.serial",
		"serial=0x":                     "value_error query.serial",
		"serial=1_0":                    "value_error query.serial",
		"serial=:":                      "value_error query.serial",
		"q=a%00b":                       "value_error query.q",
		"q=" + strings.Repeat("a", 256): "string_too_long query.q",
	} {
		if got := root.call(http.StatusUnprocessableEntity, "GET", "/api/v1/certificates/?"+query, nil).problems(t); !slices.Equal(got, []string{want}) {
			t.Errorf("%.40s: %q, want %q", query, got, want)
		}
	}
}
