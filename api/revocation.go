package api

import (
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"signet/api/wire"
	"signet/ca"
)

func (s *server) revokeCertificate(w http.ResponseWriter, r *request) error {
	id := r.id("cert_id")
	revocation := r.revocation()
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.Revoke(r.Context(), r.caller(), id, revocation)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.certificateOf(c))
	return nil
}

func (s *server) revokeCA(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	revocation := r.revocation()
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.RevokeCA(r.Context(), r.caller(), id, revocation)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.caOf(c))
	return nil
}

func (r *request) revocation() ca.RevokeRequest {
	var body wire.RevokeRequest
	r.body(&body)
	return ca.RevokeRequest{Reason: or(body.Reason, ""), InvalidityDate: body.InvalidityDate}
}

func (s *server) releaseCertificate(w http.ResponseWriter, r *request) error {
	id := r.id("cert_id")
	var body wire.ReleaseRequest
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.Release(r.Context(), r.caller(), id, or(body.Reason, ""))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.certificateOf(c))
	return nil
}

// reasonNames are the names of CRLReasons (RFC 5280, section 5.3.1) that a certificate can be revoked for.
var reasonNames = map[int]string{
	0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation",
	6: "certificateHold", 9: "privilegeWithdrawn", 10: "aACompromise",
}

// reasonOf is the name of the reason; null for what is not revoked.
func reasonOf(r ca.Revocation) *string {
	if r.At.IsZero() {
		return nil
	}
	return text(reasonNames[r.Reason])
}

func (s *server) listCRLs(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	var query wire.ListCRLsParams
	r.query(&query)
	p := r.page(query.Skip, query.Limit, query.Cursor)
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.CA(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	all, total, err := s.ca.Lists(r.Context(), r.caller(), id, p.records())
	if err != nil {
		return err
	}
	now := s.now()
	return writePage(w, r, p, all, exactly(total), ca.List.Place, func(l ca.List) wire.CRL {
		shown := wire.CRL{
			Number: l.Number, Shard: l.Shard, Delta: l.Delta, State: wire.CRLState(l.State),
			ThisUpdate: l.ThisUpdate.UTC(), NextUpdate: l.NextUpdate.UTC(), Entries: l.Entries, Size: l.Size,
			Sha256: text(hex.EncodeToString(l.SHA256)), URL: s.ca.ListURL(c, l.ListScope),
		}
		if l.Delta {
			shown.BaseNumber = &l.Base
		}
		if l.State == ca.ListPublished && l.ThisUpdate.After(now) {
			shown.State = wire.CRLStateStaged
		}
		return shown
	})
}

func (s *server) getRevocationPolicy(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	p, err := s.ca.RevocationPolicy(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.revocationPolicyOf(p))
	return nil
}

func (s *server) setRevocationPolicy(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	var body wire.RevocationPolicyUpdate
	r.body(&body)
	p := ca.RevocationPolicy{
		CRLValidity: r.interval("crl_validity", body.CRLValidity), CRLRefresh: r.interval("crl_refresh", body.CRLRefresh),
		CRLOverlap: r.interval("crl_overlap", body.CRLOverlap), OCSPValidity: r.interval("ocsp_validity", body.OCSPValidity),
		Shards: or(body.CRLShards, 0), Delta: or(body.CRLDelta, false), Presign: or(body.OCSPPresign, false),
		ByName: or(body.OCSPResponderID, wire.OCSPResponderIDKey) == wire.OCSPResponderIDName,
	}
	if body.Outage != nil {
		p.Outage = ca.Outage{From: body.Outage.From, Until: body.Outage.Until}
	}
	if err := r.err(); err != nil {
		return err
	}
	p, err := s.ca.SetRevocationPolicy(r.Context(), r.caller(), id, p)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.revocationPolicyOf(p))
	return nil
}

// interval reads a time span from the body: positive, in whole seconds; 0 when it is absent.
func (r *request) interval(name string, value *string) time.Duration {
	if value == nil {
		return 0
	}
	d, err := time.ParseDuration(strings.TrimSpace(*value))
	if err != nil || d <= 0 || d%time.Second != 0 {
		r.checker.add("value_error", "Value error, not a time span in whole seconds, such as 168h or 1h30m", []any{"body", name}, echo(*value, 0))
		return 0
	}
	return d
}

func (s *server) revocationPolicyOf(p ca.RevocationPolicy) wire.RevocationPolicy {
	effective := s.ca.Effective(p)
	shown := wire.RevocationPolicy{
		CRLValidity: span(p.CRLValidity), CRLRefresh: span(p.CRLRefresh), CRLOverlap: span(p.CRLOverlap), OCSPValidity: span(p.OCSPValidity),
		CRLShards: p.Shards, CRLDelta: p.Delta, OCSPResponderID: responderID(p.ByName), OCSPPresign: p.Presign, UpdatedAt: instant(p.UpdatedAt),
		Effective: wire.EffectiveIntervals{
			CRLValidity: effective.CRLValidity.String(), CRLRefresh: effective.CRLRefresh.String(),
			CRLOverlap: effective.CRLOverlap.String(), OCSPValidity: effective.OCSPValidity.String(),
		},
	}
	if !p.Outage.Until.IsZero() {
		shown.Outage = &wire.Outage{From: p.Outage.From.UTC(), Until: p.Outage.Until.UTC()}
	}
	return shown
}

// span is a time span as the API shows it; null when the server's setting holds.
func span(d time.Duration) *string {
	if d == 0 {
		return nil
	}
	return text(d.String())
}

func responderID(byName bool) wire.OCSPResponderID {
	if byName {
		return wire.OCSPResponderIDName
	}
	return wire.OCSPResponderIDKey
}

func (s *server) getOCSPResponder(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	responder, err := s.ca.ResponderOf(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wire.OCSPResponder{
		Certificate: string(certificatePEM(responder.Certificate)), SerialNumber: responder.Serial,
		NotBefore: responder.NotBefore.UTC(), NotAfter: responder.NotAfter.UTC(), KeyID: hex.EncodeToString(responder.KeyID),
		ResponderID: responderID(responder.ByName), URL: responder.URL,
	})
	return nil
}
