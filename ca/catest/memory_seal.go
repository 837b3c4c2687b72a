package catest

import (
	"bytes"
	"context"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// SealedKeys implements ca.Store.
func (m *Memory) SealedKeys(ctx context.Context, after int64, limit int) ([]ca.SealedKey, error) {
	if err := m.begin(ctx, "SealedKeys"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var all []ca.SealedKey
	for _, c := range byID(m.certificates, certificateID, func(c *ca.Certificate) bool { return c.ID > after && len(c.SealedKey) > 0 }) {
		if len(all) < limit {
			all = append(all, ca.SealedKey{CertificateID: c.ID, IssuerID: c.IssuerID, Serial: c.Serial, Sealed: c.SealedKey})
		}
	}
	return all, nil
}

// ReplaceSealedKeys implements ca.Store.
func (m *Memory) ReplaceSealedKeys(ctx context.Context, all []ca.KeyReplacement, e audit.Event) error {
	if err := m.begin(ctx, "ReplaceSealedKeys"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, r := range all {
		c, ok := m.certificates[r.CertificateID]
		if !ok || len(c.SealedKey) == 0 || !bytes.Equal(c.SealedKey, r.Old) {
			return fault.New(fault.Conflict, "Sealed key has changed")
		}
	}
	for _, r := range all {
		m.certificates[r.CertificateID].SealedKey = r.New
	}
	m.record(e)
	return nil
}
