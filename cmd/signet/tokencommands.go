package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"signet/audit"
	"signet/keystore"
	"signet/softhsm"
)

// tokenCommands look after the tokens of the settings, on the server itself.
type tokenCommands struct {
	Init      tokenInitCommand `cmd:"" help:"Make the token: initialize an empty one of --pkcs11-module with label, security officer's PIN and user PIN, or the SoftHSM2 token of the data folder."`
	List      tokenListCommand `cmd:"" help:"List the tokens that the modules of the settings have. Logs in nowhere."`
	Show      tokenShowCommand `cmd:"" help:"Log in to a token, have it sign, and show what it says of itself, Signet's own keys and the fingerprint of the attestation key, which auditors pin."`
	RotateKEK rotateKEKCommand `cmd:"" name:"rotate-kek" help:"Make a new key-encryption key and seal the stored leaf keys anew under it, while servers run."`
	PIN       tokenPINCommand  `cmd:"" name:"pin" help:"Change the user PIN of a token. A running server stays logged in, and reads its PIN file again when it has to log in anew."`
}

type tokenInitCommand struct {
	SOPINFile string `name:"so-pin-file" placeholder:"FILE" help:"File with the security officer's PIN to be set; SIGNET_PKCS11_SO_PIN is accepted instead. Needed with --pkcs11-module."`

	Config
}

// Run makes the token, or says that it is there already.
func (c *tokenInitCommand) Run(in *invocation) error {
	if err := c.check(); err != nil {
		return err
	}
	log := c.logger(in.stderr)
	soPIN, err := secretFrom(log, "so-pin-file", c.SOPINFile, "SIGNET_PKCS11_SO_PIN")
	if err != nil {
		return err
	}
	if c.PKCS11Module == "" {
		if err := makeDataDir(c.DataDir); err != nil {
			return err
		}
		cfg, err := c.tokenConfig(log)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(in.stdout, "token %q is in %s\n", cfg.Token, filepath.Join(c.DataDir, "softhsm"))
		return err
	}
	if soPIN == "" {
		return usagef("the security officer's PIN is missing: --so-pin-file or SIGNET_PKCS11_SO_PIN")
	}
	cfg, err := c.tokenConfig(log)
	if err != nil {
		return err
	}
	if err := keystore.InitToken(in.ctx, cfg, soPIN); err != nil {
		return err
	}
	_, err = fmt.Fprintf(in.stdout, "initialized token %q of %s\n", cfg.Token, cfg.Module)
	return err
}

type tokenListCommand struct{ Config }

// Run prints a table, one line for each token of each module.
func (c *tokenListCommand) Run(in *invocation) error {
	modules, err := c.modules()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(in.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tLABEL\tMANUFACTURER\tMODEL\tSERIAL\tSTATE\tMODULE")
	for _, m := range modules {
		all, err := keystore.ListTokens(in.ctx, m.path, m.initArgs)
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		for _, l := range all {
			name := m.names[l.Label]
			if name == "" {
				name = "-"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name,
				or(oneLine(l.Label), "-"), or(oneLine(l.Manufacturer), "-"), or(oneLine(l.Model), "-"), or(oneLine(l.Serial), "-"), stateOf(l), m.path)
		}
	}
	return table.Flush()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func stateOf(l keystore.Listing) string {
	switch {
	case !l.Initialized:
		return "empty"
	case !l.PINSet:
		return "no user PIN"
	case l.PINLocked:
		return "PIN locked"
	case l.PINLow:
		return "ready, PIN refused since last login"
	}
	return "ready"
}

// tokenModule is a module of the settings, with the names of its tokens by label.
type tokenModule struct {
	path, initArgs string
	names          map[string]string
}

// modules are the modules of the settings, without opening a token.
func (c *Config) modules() ([]tokenModule, error) {
	path, label := c.PKCS11Module, c.PKCS11Token
	if path == "" {
		var err error
		if path, err = softhsm.Use(filepath.Join(c.DataDir, "softhsm")); err != nil {
			return nil, err
		}
		label = or(label, softhsm.Label)
	}
	all := []tokenModule{{path, c.PKCS11InitArgs, map[string]string{label: defaultToken}}}
next:
	for _, name := range c.Tokens.names() {
		t := c.Tokens.byName[name]
		for _, m := range all {
			if m.path == t.Module {
				m.names[t.Token] = name
				continue next
			}
		}
		all = append(all, tokenModule{t.Module, t.InitArgs, map[string]string{t.Token: name}})
	}
	return all, nil
}

type tokenPINCommand struct {
	Name       string `arg:"" optional:"" default:"default" help:"Name of the token in the settings."`
	NewPINFile string `name:"new-pin-file" placeholder:"FILE" help:"File with the new PIN. Without it, the SoftHSM2 token of the data folder gets a random one, kept in the data folder."`

	Config
}

// Run changes the PIN, and the PIN file of a token that Signet made.
func (c *tokenPINCommand) Run(in *invocation) (err error) {
	log := c.logger(in.stderr)
	cfg, err := c.namedToken(log, c.Name)
	if err != nil {
		return err
	}
	own := c.Name == defaultToken && c.PKCS11Module == "" && c.PKCS11PINFile == "" && os.Getenv("SIGNET_PKCS11_PIN") == ""
	pin := ""
	switch {
	case c.NewPINFile != "":
		if pin, err = readSecret(log, "new-pin-file", c.NewPINFile); err != nil {
			return err
		}
	case !own:
		return usagef("--new-pin-file is needed: only the PIN of the token in the data folder is made up here")
	default:
		pin = softhsm.NewPIN()
	}
	kept := ""
	if own {
		kept = softhsm.PINFile(c.DataDir)
	}
	if err := c.change(in, cfg, pin, kept); err != nil {
		return err
	}
	where := "put the new PIN where the server reads it"
	if own {
		where = "the new PIN is in " + kept
	}
	_, err = fmt.Fprintf(in.stdout, "changed the PIN of token %q; %s\n", cfg.Token, where)
	return err
}

// change sets the PIN. The new one is on disk, in a file beside kept, before the token takes it, so that a crash in
// between loses no PIN; the next run finishes.
func (c *tokenPINCommand) change(in *invocation, cfg keystore.Config, pin, kept string) (err error) {
	db, err := openDatabase(in.ctx, &c.Config, c.logger(in.stderr), time.Now, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	token, err := keystore.Open(in.ctx, cfg)
	if errors.Is(err, keystore.ErrPIN) && kept != "" {
		token, err = openInterrupted(in.ctx, cfg, kept)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	if kept != "" {
		if err := softhsm.WriteDurably(kept+newSuffix, []byte(pin+"\n")); err != nil {
			return fmt.Errorf("keep the new PIN: %w", err)
		}
	}
	record := func(outcome string) error {
		return db.Record(in.ctx, audit.Event{Action: audit.TokenPIN, Username: operator, Detail: fmt.Sprintf("PIN of token %q: %s", cfg.Token, outcome)})
	}
	if err := record("about to be changed"); err != nil {
		return err
	}
	if err := token.SetPIN(in.ctx, pin); err != nil {
		return errors.Join(fmt.Errorf("change PIN of token %q: %w", cfg.Token, err), record("not changed"))
	}
	if kept != "" {
		if err := softhsm.WriteDurably(kept, []byte(pin+"\n")); err != nil {
			return fmt.Errorf("keep the new PIN, which is also in %s: %w", kept+newSuffix, err)
		}
		if err := os.Remove(kept + newSuffix); err != nil {
			return err
		}
	}
	return record("changed")
}

// newSuffix marks the file of a PIN that the token may or may not have taken.
const newSuffix = ".new"

// openInterrupted opens a token whose PIN an earlier run changed without getting as far as its PIN file. It gets there
// now: the file beside it, the only one with this PIN, is about to be written anew.
func openInterrupted(ctx context.Context, cfg keystore.Config, kept string) (*keystore.Token, error) {
	pin, err := readSecret(slog.New(slog.NewTextHandler(io.Discard, nil)), "new-pin-file", kept+newSuffix)
	if err != nil {
		return nil, fmt.Errorf("%w, and no change of it was interrupted", keystore.ErrPIN)
	}
	cfg.PIN = pin
	token, err := keystore.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := softhsm.WriteDurably(kept, []byte(pin+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the PIN of an interrupted change, which is also in %s: %w", kept+newSuffix, err), token.Close())
	}
	return token, nil
}

// operator is who acts in the audit trail when a command runs on the server itself.
const operator = "operator on the server"

// namedToken is the configuration of one token of the settings.
func (c *Config) namedToken(log *slog.Logger, name string) (keystore.Config, error) {
	if err := c.check(); err != nil {
		return keystore.Config{}, err
	}
	if err := makeDataDir(c.DataDir); err != nil {
		return keystore.Config{}, err
	}
	all, err := c.tokenConfigs(log)
	if err != nil {
		return keystore.Config{}, err
	}
	var names []string
	for _, named := range all {
		if named.Name == name {
			return named.Config, nil
		}
		names = append(names, named.Name)
	}
	return keystore.Config{}, usagef("no token is named %q in the settings; there are %q", name, names)
}
