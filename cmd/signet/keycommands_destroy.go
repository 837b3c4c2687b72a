package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"signet/ca"
	"signet/fault"
	"signet/keystore"
)

type keyDestroyCommand struct {
	Confirm string `name:"confirm" required:"" placeholder:"NAME" help:"The exact name of the CA; with --id, the CKA_ID once more."`

	keyChoice
	Config
}

// Run destroys the key and says what that means.
func (c *keyDestroyCommand) Run(in *invocation) (err error) {
	if err := c.keyChoice.check(); err != nil {
		return err
	}
	d, err := c.openDesk(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if c.CA != 0 {
		return c.ofCA(in, d)
	}
	return c.leftover(in, d)
}

func (c *keyDestroyCommand) ofCA(in *invocation, d *desk) error {
	authority, err := d.db.PublicCA(in.ctx, c.CA)
	if err != nil {
		return fmt.Errorf("find CA %d: %w", c.CA, err)
	}
	if c.Confirm != authority.Name {
		return usagef("--confirm must be the name of CA %d, %q, letter by letter", authority.ID, authority.Name)
	}
	if authority.DeletedAt != nil || authority.State == ca.Revoked { // otherwise the use case says what is in the way
		fmt.Fprintf(in.stderr, "destroying the key of CA %d %q (%s): key %x in token %q, and its clones in every token of the settings\n",
			authority.ID, authority.Name, caState(authority), authority.KeyID, d.authority.TokenOf(authority))
	}
	if authority, err = d.authority.DestroyKey(in.ctx, byOperator, c.CA); err != nil {
		return err
	}
	fmt.Fprintf(in.stdout, "destroyed the key of CA %d %q; the token was asked again and has it no more\n", authority.ID, authority.Name)
	fmt.Fprintln(in.stderr, "The CA signs nothing from now on, no CRL either.", d.lastCRL(in.ctx, authority))
	return d.remains(in.ctx, in.stdout, authority)
}

// lastCRL says until when relying parties learn what is revoked.
func (d *desk) lastCRL(ctx context.Context, c ca.CA) string {
	list, _, err := d.db.CurrentList(ctx, ca.ListScope{CAID: c.ID}, time.Now())
	switch {
	case fault.Is(err, fault.NotFound):
		return "It never published one."
	case err != nil:
		return "Its last one could not be read: " + err.Error()
	}
	return fmt.Sprintf("Its last one, number %d with %d entries, stays served and is valid until %s; certificates of this CA that end later can then no longer be checked.",
		list.Number, list.Entries, list.NextUpdate.UTC().Format(time.RFC3339))
}

// remains looks on every token for a copy of the key under another CKA_ID. Ending that is another ceremony, and its
// presence a failure of this one.
func (d *desk) remains(ctx context.Context, w io.Writer, c ca.CA) error {
	var failed []error
	for _, name := range d.tokens.Names() {
		token, _, err := d.token(name)
		if err != nil {
			return err
		}
		all, err := token.List(ctx)
		if err != nil {
			failed = append(failed, fmt.Errorf("look for copies of the key on token %s: %w", name, err))
			continue
		}
		for _, e := range all {
			if e.Class == "private" && e.Public != nil && string(derOf(e.Public)) == string(c.PublicKey) {
				failed = append(failed, fmt.Errorf("token %s still has a copy of the key: signet key destroy --token %s --id %x --confirm %x", name, name, e.ID, e.ID))
			}
		}
	}
	return errors.Join(failed...)
}

func (c *keyDestroyCommand) leftover(in *invocation, d *desk) error {
	if id, err := hex.DecodeString(strings.ReplaceAll(c.Confirm, ":", "")); err != nil || string(id) != string(c.ID) {
		return usagef("--confirm must be the CKA_ID of the key once more: it has no CA whose name could be given")
	}
	found, err := d.find(in.ctx, c.Token, c.ID)
	if err != nil {
		return err
	}
	switch found.Use {
	case useUnknown, useLeftover:
	case useCA:
		return fmt.Errorf("key %x is that of %s: use --ca %d", []byte(c.ID), found.CA, found.CA.ID)
	case useResponder, useClone, useCopy, useMismatch:
		return fmt.Errorf("key %x is not destroyed: %s", []byte(c.ID), found.words())
	case string(keystore.ForKeyEncryption):
		return fmt.Errorf("key %x seals private keys: signet token rotate-kek --destroy-old replaces and destroys it", []byte(c.ID))
	case string(keystore.ForDrill):
		return fmt.Errorf("key %x belongs to a drill: the next drill on this token destroys what an earlier one left", []byte(c.ID))
	default:
		return fmt.Errorf("key %x is Signet's own (%s) and needed", []byte(c.ID), found.Use)
	}
	fmt.Fprintf(in.stderr, "destroying key %x in token %q, label %q: %s\n", []byte(c.ID), found.Token, oneLine(found.Label), found.words())
	result, err := d.authority.DestroyLeftover(in.ctx, byOperator, found.Token, c.ID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(in.stdout, result)
	return err
}
