package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"signet/keystore"
	"signet/keystore/worker"
)

// defaultToken is the name of the token that the settings --pkcs11-… describe.
const defaultToken = "default"

// furtherToken is one entry of the setting tokens.
type furtherToken struct {
	Module      string        `yaml:"module"`
	Token       string        `yaml:"token"`
	PINFile     string        `yaml:"pin-file"`
	InitArgs    string        `yaml:"init-args"`
	MaxSessions int           `yaml:"max-sessions"`
	Timeout     time.Duration `yaml:"timeout"`
	Worker      bool          `yaml:"worker"`
}

// furtherTokens is the setting tokens: tokens beside the default one.
type furtherTokens struct{ byName map[string]furtherToken }

var tokenName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// UnmarshalText reads a YAML mapping, or the file that "@FILE" names.
func (f *furtherTokens) UnmarshalText(text []byte) error {
	if path, ok := strings.CutPrefix(string(text), "@"); ok {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return fmt.Errorf("read tokens: %w", err)
		}
	}
	if len(bytes.TrimSpace(text)) == 0 { // an empty variable counts as unset
		return nil
	}
	all := map[string]furtherToken{}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.DisallowUnknownField()).Decode(&all); err != nil {
		return errors.New(yaml.FormatError(err, false, false))
	}
	for name, t := range all {
		switch {
		case name == defaultToken:
			return fmt.Errorf("%q is the token of the --pkcs11 settings: give this one another name", name)
		case !tokenName.MatchString(name):
			return fmt.Errorf("the name %q must have 1 to 32 lower-case letters, digits and hyphens", name)
		case t.Module == "" || t.Token == "" || t.PINFile == "":
			return fmt.Errorf("token %s needs module, token and pin-file", name)
		case len(t.Token) > 32: // PKCS#11 2.40, section 3.2: CK_TOKEN_INFO.label
			return fmt.Errorf("token %s: the label %q has more than 32 bytes", name, t.Token)
		case t.MaxSessions < 0 || t.Timeout < 0:
			return fmt.Errorf("token %s: max-sessions and timeout must not be negative", name)
		}
	}
	f.byName = all
	return nil
}

// names lists the tokens in order, for messages and for a set that is the same at every start.
func (f furtherTokens) names() []string {
	var names []string
	for name := range f.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// tokenConfigs are the tokens to open, the default one first.
func (c *Config) tokenConfigs(log *slog.Logger) ([]keystore.Named, error) {
	first, err := c.tokenConfig(log)
	if err != nil {
		return nil, err
	}
	all := []keystore.Named{{Name: defaultToken, Config: first}}
	for _, name := range c.Tokens.names() {
		t := c.Tokens.byName[name]
		pin, err := readSecret(log, "pkcs11-pin-file", t.PINFile)
		if err != nil {
			return nil, fmt.Errorf("token %s: %w", name, err)
		}
		cfg := keystore.Config{
			Module: t.Module, Token: t.Token, PIN: pin, PINSource: pinFrom(t.PINFile), InitArgs: t.InitArgs,
			MaxSessions: t.MaxSessions, Timeout: t.Timeout,
		}
		if cfg.Timeout == 0 {
			cfg.Timeout = c.PKCS11Timeout
		}
		all = append(all, keystore.Named{Name: name, Config: cfg})
	}
	return all, nil
}

// pinFrom reads a PIN file whenever the token has refused the PIN, which may be many times a minute: what is to be said of
// the file was said at the start.
func pinFrom(path string) func() (string, error) {
	return func() (string, error) { return readSecret(slog.New(slog.DiscardHandler), "pkcs11-pin-file", path) }
}

// openTokens opens the configured tokens for the server, which follows how they are.
func (s *server) openTokens(ctx context.Context, c *Config) (err error) {
	all, err := c.tokenConfigs(s.log)
	if err != nil {
		return err
	}
	var labels []string
	for i := range all {
		name := all[i].Name
		labels = append(labels, fmt.Sprintf("%q", all[i].Token))
		all[i].Observe = func(op string, took time.Duration, err error) { s.metrics.token(name, op, took, err) }
		all[i].Changed = func(state keystore.State) { s.tokenChanged(name, state) }
		if c.inWorker(name) {
			all[i].OpenBackend = func(ctx context.Context, cfg keystore.Config) (keystore.Backend, error) {
				return s.startWorker(ctx, name, cfg)
			}
		}
	}
	s.labels = strings.Join(labels, " or ")
	s.tokens, err = keystore.OpenSet(ctx, all)
	return err
}

// inWorker reports whether the server runs a token's module in another process. Commands never do: they are short.
func (c *Config) inWorker(name string) bool {
	if name == defaultToken {
		return c.PKCS11Worker
	}
	return c.Tokens.byName[name].Worker
}

// startWorker opens a token in another process of this program.
func (s *server) startWorker(ctx context.Context, name string, cfg keystore.Config) (keystore.Backend, error) {
	program := "/proc/self/exe" // what runs now, whatever an upgrade has put in its place
	if _, err := os.Stat(program); err != nil {
		if program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
	}
	token, err := worker.Start(ctx, worker.Config{
		Keystore: cfg, Program: program, Args: []string{workerCommand}, Stderr: s.stderr,
		Lost: func(cause error) {
			s.log.Error("the process of a token ended and is being replaced", "token", name, "error", cause)
		},
	})
	if err != nil { // or else the interface would hold a nil
		return nil, err
	}
	return token, nil
}

// tokenChanged says once that a token went away and once that it is back.
func (s *server) tokenChanged(name string, state keystore.State) {
	s.metrics.tokenState(name, state)
	if state.Up {
		s.log.Info("the token is back", "token", name, "away_for", state.Outage.Round(time.Millisecond).String())
		return
	}
	s.log.Error("the token is away: signatures wait for it, then answer 503", "token", name, "cause", keystore.Reason(state.Cause), "error", state.Cause)
}

// checkTokens makes a signature on every token. One that signs is enough: what only another one can sign answers for
// itself.
func (s *server) checkTokens(ctx context.Context) error {
	names := s.tokens.Names()
	verdicts := make(chan error, len(names))
	for _, name := range names {
		go func() {
			err := s.checkToken(ctx, name)
			if err != nil && len(names) > 1 {
				err = fmt.Errorf("token %s: %w", name, err)
			}
			verdicts <- err
		}()
	}
	var all []error
	for range names {
		if err := <-verdicts; err != nil {
			all = append(all, err)
		}
	}
	if len(all) < len(names) {
		return nil
	}
	return errors.Join(all...)
}

func (s *server) checkToken(ctx context.Context, name string) error {
	token, err := s.tokens.Backend(name)
	if err != nil {
		return err
	}
	err = token.Check(ctx)
	s.metrics.tokenState(name, token.State())
	s.metrics.tokenSigns(name, err == nil)
	if err != nil {
		return err
	}
	s.metrics.sessions.WithLabelValues(name).Set(float64(token.Sessions()))
	return nil
}
