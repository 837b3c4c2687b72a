package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"signet/ca"
	"signet/notify"
)

// thresholds are times before the end of something, the longest first.
type thresholds []time.Duration

// UnmarshalText reads durations that are separated by commas, or "off".
func (t *thresholds) UnmarshalText(text []byte) error {
	*t = nil
	if string(text) == "off" {
		return nil
	}
	for part := range strings.SplitSeq(string(text), ",") {
		d, err := time.ParseDuration(strings.TrimSpace(part))
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a list of durations, such as 720h,24h, or off", text)
		}
		*t = append(*t, d)
	}
	slices.Sort(*t)
	*t = slices.Compact(*t)
	slices.Reverse(*t)
	return nil
}

// notices is what operators are told, nil when there is no webhook.
func (c *Config) notices() *ca.NoticeConfig {
	if c.WebhookURL == "" {
		return nil
	}
	return &ca.NoticeConfig{Certificates: c.NotifyBefore, CAs: c.NotifyCABefore}
}

// webhookSecret is what notifications are signed with, nil when there is no webhook.
func (c *Config) webhookSecret(log *slog.Logger) ([]byte, error) {
	if c.WebhookURL == "" {
		return nil, nil
	}
	secret, err := secretFrom(log, "webhook-secret-file", c.WebhookSecretFile, "SIGNET_WEBHOOK_SECRET")
	if err != nil {
		return nil, err
	}
	if len(secret) < notify.MinSecret {
		return nil, usagef("--webhook-url needs a secret of at least %d characters in --webhook-secret-file: 'openssl rand -hex 32' makes a good one", notify.MinSecret)
	}
	return []byte(secret), nil
}

// openWebhook returns what delivers notifications, nil when there is no webhook.
func (s *server) openWebhook(url string, secret []byte) *notify.Webhook {
	if url == "" {
		return nil
	}
	var failing atomic.Bool
	return notify.New(notify.Config{
		URL: url, Secret: secret, UserAgent: "signet/" + programVersion(), Store: s.db,
		Leads: s.authority.Leads, Now: s.now,
		Attempted: func(e notify.Event, o notify.Outcome, err error) {
			s.metrics.webhook.WithLabelValues(string(o)).Inc()
			log := s.log.With("event", e.EventID(), "type", e.Type, "attempts", e.Attempts)
			switch {
			case o == notify.GivenUp:
				log.Error("a notification was given up", "error", err)
			case err != nil && !failing.Swap(true):
				log.Warn("the webhook does not take notifications", "error", err)
			case err != nil:
				log.Debug("the webhook does not take notifications", "error", err)
			case failing.Swap(false):
				log.Info("the webhook takes notifications again")
			}
		},
		Failed: func(err error) { s.failed("webhook", err) },
	})
}
