package main

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"signet/evidence"
	"signet/keystore"
)

type tokenShowCommand struct {
	Name           string `arg:"" optional:"" default:"default" help:"Name of the token in the settings."`
	AttestationKey string `name:"attestation-key" placeholder:"FILE" help:"Write the public half of the attestation key to this file, in PEM, for auditors."`

	outputFormat
	Config
}

// shownToken is what a token says after login.
type shownToken struct {
	evidence.Token
	Slot        uint     `json:"slot"`
	Flags       []string `json:"flags"`
	Mechanisms  int      `json:"mechanisms"`
	Health      string   `json:"health"` // "signs", or why it does not
	Sessions    int      `json:"sessions"`
	KEKs        []string `json:"key_encryption_keys"` // CKA_IDs in hexadecimal, the one that seals first
	Attestation *struct {
		ID     string `json:"key_id"`
		Type   string `json:"key_type"`
		Size   int    `json:"key_size"`
		SHA256 string `json:"sha256"` // of the DER SubjectPublicKeyInfo
	} `json:"attestation_key"`
}

// Run logs in, has the token sign and prints what it says. The health and the attestation key are made if there are
// none. A token that does not sign is shown, too, with exit code 1.
func (c *tokenShowCommand) Run(in *invocation) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if err := c.mustHaveToken(); err != nil {
		return err
	}
	configs, err := c.tokenConfigs(c.logger(in.stderr))
	if err != nil {
		return err
	}
	tokens, err := keystore.OpenSet(in.ctx, configs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tokens.Close()) }()
	keys := &tokenKeys{tokens: tokens, sync: c.syncToken}
	token, _, err := (&desk{tokens: tokens, keys: keys}).token(c.Name)
	if err != nil {
		return err
	}
	sick := token.Check(in.ctx)
	shown, public, err := describeToken(in.ctx, keys, token, c.Name, sick)
	if err != nil {
		return errors.Join(err, sick)
	}
	if c.AttestationKey != "" {
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
		if err := os.WriteFile(c.AttestationKey, text, 0o644); err != nil {
			return fmt.Errorf("write attestation key: %w", err)
		}
	}
	return errors.Join(c.write(in.stdout, shown, shown.text), sick)
}

// describeToken asks the token. It returns the public attestation key in DER.
func describeToken(ctx context.Context, keys *tokenKeys, token *keystore.Token, name string, sick error) (*shownToken, []byte, error) {
	shown := &shownToken{Health: "signs", KEKs: []string{}}
	if sick != nil {
		shown.Health = keystore.Reason(sick)
	}
	_, attesting, err := keys.Attester(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	shown.Attestation = &struct {
		ID     string `json:"key_id"`
		Type   string `json:"key_type"`
		Size   int    `json:"key_size"`
		SHA256 string `json:"sha256"`
	}{hex.EncodeToString(attesting.ID), attesting.Type, attesting.Size, evidence.Fingerprint(attesting.PublicKey)}
	ids, err := token.KEKs(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		shown.KEKs = append(shown.KEKs, hex.EncodeToString(id))
	}
	info, err := token.Info(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("describe token: %w", err)
	}
	shown.Token = tokenIdentity(name, info)
	shown.Slot, shown.Flags, shown.Mechanisms, shown.Sessions = info.Slot, info.Flags, info.Mechanisms, info.Sessions
	return shown, attesting.PublicKey, nil
}

func (t *shownToken) text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...)))
	}
	row("Name", "%s", t.Name)
	row("Label", "%s", t.Label)
	row("Manufacturer", "%s", or(t.Manufacturer, "-"))
	row("Model", "%s", or(t.Model, "-"))
	row("Serial", "%s", or(t.Serial, "-"))
	row("Firmware", "%s", t.Firmware)
	row("Module", "%s", t.Module.Path)
	row("Module SHA-256", "%s", or(t.Module.SHA256, "unknown: the linker found it elsewhere"))
	row("Library", "%s %s", t.Module.Description, t.Module.Version)
	row("Cryptoki", "%s", t.Module.Cryptoki)
	row("Slot", "%d", t.Slot)
	row("Flags", "%s", strings.Join(t.Flags, ", "))
	row("Mechanisms", "%d", t.Mechanisms)
	row("Sessions", "%d of this command", t.Sessions)
	row("Health", "%s", t.Health)
	row("Key-encryption keys", "%s", or(strings.Join(t.KEKs, ", "), "none yet"))
	row("Attestation key", "%s, %s-%d", t.Attestation.ID, t.Attestation.Type, t.Attestation.Size)
	row("Its SHA-256", "%s", t.Attestation.SHA256)
	return table.Flush()
}
