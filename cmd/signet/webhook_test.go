package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet/notify"
)

func TestThresholds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]thresholds{
		"off":               nil,
		"24h":               {24 * time.Hour},
		"24h,720h, 168h":    {720 * time.Hour, 168 * time.Hour, 24 * time.Hour},
		"1h,60m,3600s,1h1s": {time.Hour + time.Second, time.Hour},
	} {
		got := thresholds{time.Minute} // what was there before is replaced
		if err := got.UnmarshalText([]byte(text)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestAWebhookNeedsASecret(t *testing.T) {
	t.Setenv("SIGNET_WEBHOOK_SECRET", "")
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	path := filepath.Join(t.TempDir(), "secret")
	for content, want := range map[string]string{"": "is empty", "fifteen letters": "at least 16", "sixteen letters!": "", "sixteen letters!\n": ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		secret, err := (&Config{WebhookURL: "http://127.0.0.1:1", WebhookSecretFile: path}).webhookSecret(logger)
		switch {
		case want == "" && (err != nil || string(secret) != "sixteen letters!"):
			t.Errorf("%q: secret %q, %v", content, secret, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "fifteen")):
			t.Errorf("%q: error is %v, want %q", content, err, want)
		}
	}
	if _, err := (&Config{WebhookURL: "http://127.0.0.1:1"}).webhookSecret(logger); err == nil {
		t.Error("no secret is accepted")
	}
	t.Setenv("SIGNET_WEBHOOK_SECRET", "a secret of the environment")
	if secret, err := (&Config{WebhookURL: "http://127.0.0.1:1"}).webhookSecret(logger); err != nil || string(secret) != "a secret of the environment" {
		t.Errorf("secret %q, %v: want that of the environment", secret, err)
	}
	if secret, err := (&Config{}).webhookSecret(logger); err != nil || secret != nil {
		t.Errorf("secret %q, %v without a webhook", secret, err)
	}
	if strings.Contains(log.String(), "letters") {
		t.Errorf("the log has the secret: %s", log.String())
	}
}

func TestTheWebhookIsToldWhatEnds(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			const secret = "a secret that no log may have"
			type delivery struct {
				Type   string
				Data   object
				signed bool
			}
			deliveries := make(chan delivery, 10)
			hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var d delivery
				body, err := io.ReadAll(r.Body)
				if err == nil {
					err = json.Unmarshal(body, &d)
				}
				if err != nil {
					t.Errorf("read delivery: %v", err)
				}
				d.signed = r.Header.Get(notify.HeaderSignature) == notify.Sign([]byte(secret), r.Header.Get(notify.HeaderTimestamp), body)
				deliveries <- d
			}))
			t.Cleanup(hook.Close)

			s := newSite(t, database)
			r := s.start("signet")
			r.firstUser()
			authority := r.must(http.StatusCreated, "POST", "/api/v1/cas/", object{
				"name": "Short", "subject_dn": "CN=Short", "key_type": "ec", "key_size": 256, "valid_days": 1})
			r.must(http.StatusCreated, "POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", id(authority)), object{
				"common_name": "www.example.com", "subject_dn": "CN=www.example.com", "certificate_type": "server",
				"key_type": "ec", "key_size": 256, "valid_days": 1})
			made := time.Now()
			r.stop(syscall.SIGTERM)

			// A day's validity starts a minute early. The threshold is reached some seconds after the certificate was made.
			const threshold = "23h58m55s"
			time.Sleep(time.Until(made.Add(5 * time.Second)))
			s.args = append(s.args, "--webhook-url", hook.URL+"/hidden-path", "--notify-before", threshold, "--notify-ca-before", threshold, "--log-level", "debug")
			r = s.start("signet", "SIGNET_WEBHOOK_SECRET="+secret)
			told := map[string]object{}
			for range 2 {
				select {
				case d := <-deliveries:
					told[d.Type] = d.Data
					if !d.signed {
						t.Errorf("%s is not signed", d.Type)
					}
				case <-time.After(30 * time.Second):
					t.Fatalf("told %v only:\n%s", told, r.stderr)
				}
			}
			if c := told["certificate.expiring"]; c["common_name"] != "www.example.com" || c["within"] != threshold {
				t.Errorf("the certificate is told as %v", c)
			}
			if c := told["ca.expiring"]; c["ca_name"] != "Short" || c["serial_number"] == "" {
				t.Errorf("the CA is told as %v", c)
			}
			slug := fmt.Sprintf("short-%d", id(authority))
			for _, want := range []string{
				`signet_webhook_deliveries_total{outcome="delivered"} 2`, "signet_leader 1",
				`signet_certificates_expiring{ca="` + slug + `",within="24h"} 1`, `signet_ca_not_after_timestamp_seconds{ca="` + slug + `"} `,
			} {
				eventually(t, 10*time.Second, "the metrics have "+want, func() bool {
					return strings.Contains(string(r.raw(http.StatusOK, "GET", "/metrics", nil)), want)
				})
			}
			r.stop(syscall.SIGKILL)

			// What was told is not told again by the next process.
			r = s.start("signet", "SIGNET_WEBHOOK_SECRET="+secret)
			select {
			case d := <-deliveries:
				t.Errorf("%s is told again", d.Type)
			case <-time.After(8 * time.Second):
			}
			if log := r.stderr.String(); strings.Contains(log, secret) || strings.Contains(log, "hidden-path") {
				t.Errorf("the log says too much:\n%s", log)
			}
		})
	}
}
