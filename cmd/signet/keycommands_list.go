package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"signet/ca"
)

type keyListCommand struct {
	Token string `name:"token" placeholder:"NAME" help:"Only the token of this name in the settings."`

	outputFormat
	Config
}

// Run lists the keys of each token, those of CAs that are missing last. Tokens that cannot be read are named in the
// error, after the others were listed.
func (c *keyListCommand) Run(in *invocation) (err error) {
	d, err := c.openDesk(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	names := d.tokens.Names()
	if c.Token != "" {
		if _, _, err := d.token(c.Token); err != nil {
			return err
		}
		names = []string{c.Token}
	}
	listed, failed := d.list(in.ctx, names, c.Token == "")
	if listed == nil && failed != nil {
		return failed
	}
	return errors.Join(c.write(in.stdout, listed, func(w io.Writer) error { return writeKeys(w, listed) }), failed)
}

// list names the keys of the tokens. elsewhere adds CAs on tokens that the settings do not have.
func (d *desk) list(ctx context.Context, names []string, elsewhere bool) ([]ownedKey, error) {
	owners, err := d.owners(ctx)
	if err != nil {
		return nil, err
	}
	all := []ownedKey{}
	var failed []error
	for _, name := range names {
		token, _, err := d.token(name)
		if err != nil {
			return nil, err
		}
		entries, err := token.List(ctx)
		if err != nil {
			failed = append(failed, fmt.Errorf("token %s: %w", name, err))
			continue
		}
		var here []ownedKey
		for _, e := range entries {
			here = append(here, owners.name(name, e))
		}
		all = append(append(all, here...), owners.missing(name, here)...)
	}
	var lost []string // names of tokens in the database
	for _, c := range owners.all {
		if home := owners.home(c); elsewhere && c.NeedsKey() && c.State != ca.Pending && !slices.Contains(names, home) && !slices.Contains(lost, home) {
			lost = append(lost, home)
			all = append(all, owners.missing(home, nil)...)
		}
	}
	return all, errors.Join(failed...)
}

func writeKeys(w io.Writer, all []ownedKey) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tCKA_ID\tLABEL\tTYPE\tSIZE\tWHAT IT IS")
	for _, k := range all {
		size := "-"
		if k.Size > 0 {
			size = fmt.Sprint(k.Size)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Token, or(k.ID, "-"), or(oneLine(k.Label), "-"), k.Type, size, k.words())
	}
	return table.Flush()
}
