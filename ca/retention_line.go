package ca

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"time"

	"signet/audit"
	"signet/policy"
)

// The lines below are the format of archives: docs/retention.md describes it. Fields are added, never renamed.

type archivedCertificate struct {
	Record           string                 `json:"record"`
	ID               int64                  `json:"id"`
	CAID             int64                  `json:"ca_id"`
	Serial           string                 `json:"serial"`
	State            State                  `json:"state"`
	Type             policy.CertificateType `json:"certificate_type"`
	CommonName       string                 `json:"common_name"`
	SubjectDN        string                 `json:"subject_dn"`
	KeyType          policy.KeyType         `json:"key_type"`
	KeySize          int                    `json:"key_size"`
	NotBefore        time.Time              `json:"not_before"`
	NotAfter         time.Time              `json:"not_after"`
	OrganizationID   *int64                 `json:"organization_id"`
	CreatedBy        *int64                 `json:"created_by_user_id"`
	CreatedAt        time.Time              `json:"created_at"`
	UpdatedAt        time.Time              `json:"updated_at"`
	RevokedAt        *time.Time             `json:"revoked_at"`
	RevocationReason *int                   `json:"revocation_reason"`
	RevocationText   string                 `json:"revocation_text,omitempty"`
	InvalidityDate   *time.Time             `json:"invalidity_date,omitempty"`
	CRLShard         int                    `json:"crl_shard"`
	HadKey           bool                   `json:"had_private_key"`
	Certificate      string                 `json:"certificate,omitempty"`     // PEM
	TBS              []byte                 `json:"tbs_certificate,omitempty"` // DER, of one that was never completed
}

func certificateLine(c ExpiredCertificate) ([]byte, error) {
	line := archivedCertificate{
		Record: "certificate", ID: c.ID, CAID: c.IssuerID, Serial: c.Serial, State: c.State, Type: c.Type, CommonName: c.CommonName,
		SubjectDN: c.SubjectDN, KeyType: c.KeyType, KeySize: c.KeySize, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		OrganizationID: c.OrganizationID, CreatedBy: c.CreatedBy, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
		RevokedAt: present(c.Revocation.At), RevocationText: c.Revocation.Text, InvalidityDate: present(c.Revocation.InvalidityDate),
		CRLShard: c.CRLShard, HadKey: c.HasKey, TBS: c.TBS,
	}
	if line.RevokedAt != nil {
		line.RevocationReason = &c.Revocation.Reason
	}
	if len(c.DER) > 0 {
		line.Certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER}))
	}
	return json.Marshal(line)
}

// present is a time as JSON has it: null for none.
func present(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

type archivedList struct {
	Record     string    `json:"record"`
	CAID       int64     `json:"ca_id"`
	Number     int64     `json:"number"`
	Shard      int       `json:"shard"`
	Delta      bool      `json:"delta"`
	Base       int64     `json:"base_number,omitempty"`
	State      ListState `json:"state"`
	Attempts   int       `json:"attempts"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
	Size       int64     `json:"size"`
	SHA256     string    `json:"sha256"` // of the DER, in hex
}

func listLine(l List) ([]byte, error) {
	return json.Marshal(archivedList{Record: "crl", CAID: l.CAID, Number: l.Number, Shard: l.Shard, Delta: l.Delta, Base: l.Base, State: l.State,
		Attempts: l.Attempts, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Entries: l.Entries, Size: l.Size, SHA256: hex.EncodeToString(l.SHA256)})
}

type archivedEntry struct {
	Record         string       `json:"record"`
	ID             int64        `json:"id"`
	CreatedAt      time.Time    `json:"created_at"`
	Action         audit.Action `json:"action"`
	UserID         *int64       `json:"user_id"`
	Username       string       `json:"username"`
	OrganizationID *int64       `json:"organization_id"`
	ResourceType   string       `json:"resource_type"`
	ResourceID     *int64       `json:"resource_id"`
	Detail         string       `json:"detail"`
	RequestID      string       `json:"request_id"`
	RemoteAddr     string       `json:"remote_addr"`
}

func entryLine(e audit.Entry) ([]byte, error) {
	return json.Marshal(archivedEntry{Record: "audit_entry", ID: e.ID, CreatedAt: e.CreatedAt, Action: e.Action, UserID: e.UserID,
		Username: e.Username, OrganizationID: e.OrganizationID, ResourceType: e.ResourceType, ResourceID: e.ResourceID,
		Detail: e.Detail, RequestID: e.RequestID, RemoteAddr: e.RemoteAddr})
}
