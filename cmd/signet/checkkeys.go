package main

import (
	"context"
	"errors"
	"fmt"

	"signet/ca"
	"signet/fault"
	"signet/keystore"
)

// keysPerPage is how many CAs are read at once.
const keysPerPage = 500

// checkKeys looks for the key of every CA in the token and logs what is wrong with each. It fails when the token has
// none of them, unless that was accepted: then it is not the token of this database, and nothing that would be made in
// it belongs here. A token that is away proves nothing, so that the check ends there without an error.
func (s *server) checkKeys(ctx context.Context, acceptMissing bool) error {
	all, absent := 0, 0
	for page := (ca.Page{Limit: keysPerPage}); ; {
		found, _, err := s.db.CAs(ctx, ca.Scope{All: true}, page)
		if err != nil {
			return fmt.Errorf("check the keys of the CAs: %w", err)
		}
		for _, c := range found {
			page.After = c.ID
			if c.KeyDestroyedAt != nil {
				continue
			}
			all++
			_, err := s.keys.Signer(ctx, c.KeyRef())
			switch {
			case err == nil:
				continue
			case fault.Is(err, fault.Unavailable) || ctx.Err() != nil:
				s.log.Warn("the keys of the CAs were not all looked for: the token is not available", "error", err)
				return nil
			case errors.Is(err, keystore.ErrNotFound), errors.Is(err, keystore.ErrMismatch):
				absent++
			}
			s.log.Error("a CA cannot sign: its key in the token is missing, another one, or unfit", "ca_id", c.ID, "name", c.Name,
				"key_id", fmt.Sprintf("%x", c.KeyID), "error", err)
		}
		if len(found) < keysPerPage {
			break
		}
	}
	if all > 0 && absent == all && !acceptMissing {
		return fmt.Errorf("token %s has the key of none of the %d CAs in the database: this is not the token of this database; "+
			"start with the token that belongs to it, or restore it (--accept-missing-ca-keys starts all the same)", s.labels, all)
	}
	return nil
}
