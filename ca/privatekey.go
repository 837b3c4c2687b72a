package ca

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"

	"signet/audit"
	"signet/policy"
)

// PrivateKey unseals the private key that was made for a certificate and returns it as PKCS#8 PEM; nil when none is
// kept. Every outcome is audited before it is answered.
func (a *Authority) PrivateKey(ctx context.Context, caller policy.Caller, id int64) (Certificate, []byte, error) {
	c, err := a.cfg.Store.Certificate(ctx, id)
	if err != nil {
		return Certificate{}, nil, fmt.Errorf("find certificate: %w", err)
	}
	ctx, cancel := finish(ctx, issueTimeout) // a client that hangs up must not stop the record
	defer cancel()
	record := func(detail string) error {
		e := a.event(ctx, caller, audit.CertExportPrivate, c.OrganizationID, audit.ResourceCertificate, &c.ID, detail)
		if err := a.cfg.Store.Record(ctx, e); err != nil {
			return fmt.Errorf("record key export: %w", err)
		}
		return nil
	}
	if denied := policy.Allow(caller, policy.ExportPrivateKey, c.object()); denied != nil {
		if err := record("refused: insufficient permissions"); err != nil {
			return Certificate{}, nil, err
		}
		return Certificate{}, nil, a.allow(denied)
	}
	if len(c.SealedKey) == 0 {
		return c, nil, record("no private key is kept")
	}
	der, err := a.cfg.Keys.Unseal(ctx, c.SealedKey, sealedPlace(c))
	if err != nil {
		err = a.refuse(fmt.Errorf("unseal key of certificate %d: %w", id, err))
		return Certificate{}, nil, errors.Join(err, record("failed: the key could not be unsealed"))
	}
	defer clear(der)
	if err := record("private key exported"); err != nil {
		return Certificate{}, nil, err
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
