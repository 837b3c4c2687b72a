package ca

import (
	"context"
	"crypto"
	"crypto/x509"
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
	if !keyOf(c.DER, der) {
		return Certificate{}, nil, errors.Join(fmt.Errorf("export key of certificate %d: %w", id, errForeignKey), record("failed: "+errForeignKey.Error()))
	}
	if err := record("private key exported"); err != nil {
		return Certificate{}, nil, err
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Issued returns a certificate as [Authority.Issue] did, with its private key if one is kept, which is an export of the key.
func (a *Authority) Issued(ctx context.Context, caller policy.Caller, id int64) (Issued, error) {
	c, err := a.Certificate(ctx, caller, id)
	if err != nil || len(c.SealedKey) == 0 {
		return Issued{Certificate: c}, err
	}
	c, key, err := a.PrivateKey(ctx, caller, id)
	return Issued{Certificate: c, PrivateKeyPEM: key}, err
}

// errForeignKey is a sealed secret that opens and is not the key of its certificate. Tokens without AES-GCM seal to a
// public key, which whoever may write to the database can do too.
var errForeignKey = errors.New("the sealed key is not that of the certificate")

// keyOf reports whether a private key (PKCS#8) is that of a certificate (DER).
func keyOf(certificate, private []byte) bool {
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		return false
	}
	key, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return false
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(parsed.PublicKey)
}
