package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"signet/ca"
	"signet/keystore"
	"signet/policy"
	"signet/store"
)

// keyCommands look after the keys in the tokens, on the server itself.
type keyCommands struct {
	List    keyListCommand    `cmd:"" help:"List every key in the tokens of the settings and say whose it is; CAs whose key is missing, too."`
	Show    keyShowCommand    `cmd:"" help:"Show a key: its attributes as the token tells them, its grade and why, its last drill, what was accepted."`
	Drill   keyDrillCommand   `cmd:"" help:"Attack a key now. Exit code 1 when an attack succeeded or the drill was inconclusive. The drill of a CA's key is recorded, and may lock or unlock the CA."`
	Destroy keyDestroyCommand `cmd:"" help:"Destroy the key of a CA that is deleted or revoked, or a key that is no CA's, for good."`
}

// caCommands make CAs of keys that exist already, on the server itself.
type caCommands struct {
	Adopt       caAdoptCommand       `cmd:"" help:"Make a CA of a key that is in a token already, with its certificate or with a new self-signed one."`
	AcceptGrade caAcceptGradeCommand `cmd:"" name:"accept-grade" help:"Accept that the key of a CA is below grade drilled, which unlocks the CA if that suffices; or withdraw that with --grade drilled."`
}

// byOperator is who acts when a command runs on the server itself.
var byOperator = policy.Caller{Username: operator, Operator: true}

// desk is where an operator works: the server's database and tokens, opened beside it.
type desk struct {
	db        *store.DB
	tokens    *keystore.Set
	keys      *tokenKeys
	authority *ca.Authority
}

// openDesk opens database and tokens with the settings of the server. It makes neither of them.
func (c *Config) openDesk(in *invocation) (*desk, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.mustHaveToken(); err != nil {
		return nil, err
	}
	log := c.logger(in.stderr)
	configs, err := c.tokenConfigs(log)
	if err != nil {
		return nil, err
	}
	d := &desk{}
	if d.db, err = openDatabase(in.ctx, c, log, time.Now, nil); err != nil {
		return nil, err
	}
	if d.tokens, err = keystore.OpenSet(in.ctx, configs); err != nil {
		return nil, errors.Join(err, d.db.Close())
	}
	d.keys = &tokenKeys{tokens: d.tokens, sync: c.syncToken}
	settings := c.authority()
	settings.Store, settings.Keys, settings.Now = d.db, d.keys, time.Now
	settings.PublicURL = strings.TrimRight(c.PublicURL, "/") // no certificate made here names it
	settings.Hooks.Failed = func(task string, err error) { log.Error("background work failed", "task", task, "error", err) }
	d.authority = ca.New(settings)
	return d, nil
}

// mustHaveToken keeps a command with the wrong settings from making a token of its own.
func (c *Config) mustHaveToken() error {
	if c.PKCS11Module != "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, "softhsm")); err != nil {
		return fmt.Errorf("there is no token in the data folder %s: give the settings of the server, or make the token with signet token init: %w", c.DataDir, err)
	}
	return nil
}

// close waits for the CRLs that a change has begun to publish, and closes everything.
func (d *desk) close() error {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	d.authority.Run(done)
	return errors.Join(d.tokens.Close(), d.db.Close())
}

// token returns a token by the name that --token gives, and its name.
func (d *desk) token(name string) (*keystore.Token, string, error) {
	token, err := d.tokens.Token(name)
	if err != nil {
		return nil, "", usagef("no token is named %q in the settings; there are %q", name, d.tokens.Names())
	}
	if name == "" {
		name = d.keys.Default()
	}
	return token, name, nil
}

// keyChoice is a key as a command line names it.
type keyChoice struct {
	CA    int64  `name:"ca" xor:"key" placeholder:"ID" help:"The key of this CA."`
	ID    keyID  `name:"id" xor:"key" placeholder:"HEX" help:"The key with this CKA_ID, in hexadecimal as signet key list shows it."`
	Token string `name:"token" placeholder:"NAME" help:"Name of the token in the settings, for --id. Default: the token named default."`
}

func (k keyChoice) check(more ...bool) error {
	n := 0
	for _, given := range append(more, k.CA != 0, len(k.ID) > 0) {
		if given {
			n++
		}
	}
	switch {
	case n != 1 && len(more) > 0:
		return usagef("exactly one of --ca, --id and --all is needed")
	case n != 1:
		return usagef("one of --ca and --id is needed")
	case k.CA < 0:
		return usagef("--ca: a CA has no negative id")
	case k.Token != "" && len(k.ID) == 0:
		return usagef("--token goes with --id: a CA knows its token")
	}
	return nil
}

// keyID is a CKA_ID on a command line: hexadecimal, with or without colons.
type keyID []byte

const maxKeyID = 255 // octets; longer ones no token of ours has

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *keyID) UnmarshalText(text []byte) error {
	id, err := hex.DecodeString(strings.ReplaceAll(string(text), ":", ""))
	if err != nil || len(id) == 0 || len(id) > maxKeyID {
		return fmt.Errorf("%q is no CKA_ID in hexadecimal", text)
	}
	*k = id
	return nil
}

// outputFormat is the option of commands that show something.
type outputFormat struct {
	Output string `name:"output" default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json."`
}

// write writes value as JSON, or as text says.
func (o outputFormat) write(w io.Writer, value any, text func(io.Writer) error) error {
	if o.Output != "json" {
		return text(w)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// oneLine keeps what a token says from imitating lines of ours, or from turning them around.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
