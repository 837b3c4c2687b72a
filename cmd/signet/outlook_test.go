package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"signet/ca"
)

// distantEnds are CAs in every state that metrics tell apart.
type distantEnds struct{ err error }

func (distantEnds) Leads() bool { return true }

func (d distantEnds) Outlook(context.Context, ...time.Duration) ([]ca.Outlook, error) {
	if d.err != nil {
		return nil, d.err
	}
	deleted := time.Unix(50, 0)
	list := func(shard int, delta bool, number, next int64) ca.ScopeState {
		return ca.ScopeState{ListScope: ca.ListScope{Shard: shard, Delta: delta}, Current: &ca.List{Number: number, NextUpdate: time.Unix(next, 0)}}
	}
	responder := &ca.Responder{NotAfter: time.Unix(300, 0)}
	end := time.Unix(1000, 0)
	return []ca.Outlook{
		{CAExpiry: ca.CAExpiry{CA: ca.CA{ID: 1, Name: "Acme", State: ca.Valid, NotAfter: end}, Expiring: []int64{1, 2, 3}, Responder: responder},
			Lists: []ca.ScopeState{list(0, false, 7, 220), list(1, false, 8, 210), list(1, true, 9, 200)}},
		{CAExpiry: ca.CAExpiry{CA: ca.CA{ID: 2, Name: "New", State: ca.Valid, NotAfter: end}, Expiring: []int64{0, 0, 0}},
			Lists: []ca.ScopeState{{}}},
		{CAExpiry: ca.CAExpiry{CA: ca.CA{ID: 3, Name: "Revoked", State: ca.Revoked, NotAfter: end}, Expiring: []int64{0, 0, 1}},
			Lists: []ca.ScopeState{list(0, false, 3, 230)}},
		{CAExpiry: ca.CAExpiry{CA: ca.CA{ID: 4, Name: "Deleted", State: ca.Valid, NotAfter: end, DeletedAt: &deleted}, Expiring: []int64{0, 0, 0}},
			Lists: []ca.ScopeState{list(0, false, 4, 240)}},
		{CAExpiry: ca.CAExpiry{CA: ca.CA{ID: 5, Name: "Over", State: ca.Valid, NotAfter: time.Unix(60, 0)}, Expiring: []int64{0, 0, 0}, Responder: responder}},
	}, nil
}

// series are the labels and values of our gauges, by name.
func series(t *testing.T, m *metrics) map[string][]string {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, l := range metric.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			text := fmt.Sprint(" ", metric.GetGauge().GetValue())
			if len(labels) > 0 {
				text = "{" + strings.Join(labels, ",") + "}" + text
			}
			all[family.GetName()] = append(all[family.GetName()], text)
		}
	}
	return all
}

func TestMetricsOfWhatEnds(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	m.lookOut(distantEnds{})
	m.outlook.look(t.Context(), func(task string, err error) { t.Errorf("%s: %v", task, err) })
	for name, want := range map[string]string{
		"signet_leader":                         ` 1`,
		"signet_ca_not_after_timestamp_seconds": `{ca="acme-1"} 1000|{ca="new-2"} 1000|{ca="over-5"} 60`,
		"signet_certificates_expiring": `{ca="acme-1",within="168h"} 2|{ca="acme-1",within="24h"} 1|{ca="acme-1",within="720h"} 3|` +
			`{ca="new-2",within="168h"} 0|{ca="new-2",within="24h"} 0|{ca="new-2",within="720h"} 0|` +
			`{ca="over-5",within="168h"} 0|{ca="over-5",within="24h"} 0|{ca="over-5",within="720h"} 0|` +
			`{ca="revoked-3",within="168h"} 0|{ca="revoked-3",within="24h"} 0|{ca="revoked-3",within="720h"} 1`,
		"signet_crl_next_update_timestamp_seconds":          `{ca="acme-1"} 210|{ca="deleted-4"} 240|{ca="new-2"} 0|{ca="revoked-3"} 230`,
		"signet_crl_number":                                 `{ca="acme-1"} 9|{ca="deleted-4"} 4|{ca="new-2"} 0|{ca="revoked-3"} 3`,
		"signet_ocsp_responder_not_after_timestamp_seconds": `{ca="acme-1"} 300`,
	} {
		got := series(t, m)[name]
		if strings.Join(got, "|") != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, strings.Join(got, "|"), want)
		}
	}
}

func TestMetricsOfWhatEndsStayWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	m.lookOut(distantEnds{})
	m.outlook.look(t.Context(), func(task string, err error) { t.Errorf("%s: %v", task, err) })
	before := series(t, m)["signet_crl_number"]
	away := errors.New("the database is away")
	m.outlook.authority = distantEnds{away}
	var failed []string
	m.outlook.look(t.Context(), func(task string, err error) {
		if errors.Is(err, away) {
			failed = append(failed, task)
		}
	})
	if after := series(t, m)["signet_crl_number"]; len(after) == 0 || !slices.Equal(after, before) || len(failed) != 1 || failed[0] != "outlook" {
		t.Errorf("metrics %v, then %v; failures %v", before, after, failed)
	}
}

// ruleFile is what the test below reads of a file of Prometheus' rules.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func TestAlertsAreAboutMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	if err := yaml.UnmarshalWithOptions(data, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if names[rule.Alert] || !strings.HasPrefix(rule.Alert, "Signet") {
				t.Errorf("alert %q is not named well, or twice", rule.Alert)
			}
			names[rule.Alert] = true
			if rule.Annotations["summary"] == "" || rule.Labels["severity"] != "critical" && rule.Labels["severity"] != "warning" {
				t.Errorf("%s lacks a summary or a severity", rule.Alert)
			}
			if rule.For != "" {
				if _, err := time.ParseDuration(rule.For); err != nil {
					t.Errorf("%s: %v", rule.Alert, err)
				}
			}
			metrics := regexp.MustCompile(`signet_\w+`).FindAllString(rule.Expr, -1)
			if len(metrics) == 0 || strings.Count(rule.Expr, "(") != strings.Count(rule.Expr, ")") {
				t.Errorf("%s: strange expression %s", rule.Alert, rule.Expr)
			}
			for _, name := range metrics {
				if !strings.Contains(string(manual), "\n| `"+name+"` |") {
					t.Errorf("%s is about %s, which docs/operations.md does not describe", rule.Alert, name)
				}
			}
		}
	}
	for _, name := range []string{"SignetCRLLapsing", "SignetResponderEnding", "SignetCAExpiring", "SignetWebhookFails", "SignetLeaderMissing"} {
		if !names[name] {
			t.Errorf("there is no alert %s", name)
		}
	}
}
