package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"signet/keystore"
)

func TestEveryMetricIsInTheManual(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	m := newMetrics()
	m.tokenState(defaultToken, keystore.State{})
	m.sessions.WithLabelValues(defaultToken)
	m.token(defaultToken, "sign", time.Millisecond, errors.New("CKR_DEVICE_ERROR"))
	m.component("token", false)
	m.revoked.WithLabelValues("1")
	m.database.WithLabelValues("Reserve")
	m.lookOut(distantEnds{})
	m.outlook.look(t.Context(), func(task string, err error) { t.Errorf("%s: %v", task, err) })
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "signet_") {
			continue
		}
		ours++
		if !strings.Contains(string(manual), "\n| `"+family.GetName()+"` |") {
			t.Errorf("docs/operations.md does not describe %s", family.GetName())
		}
	}
	if ours < 20 {
		t.Errorf("only %d metrics of ours", ours)
	}
}
