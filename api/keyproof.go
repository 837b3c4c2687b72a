package api

import (
	"fmt"
	"net/http"

	"signet/api/wire"
	"signet/ca"
	"signet/evidence"
)

func (s *server) getKeyEvidence(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	var query wire.GetKeyEvidenceParams
	r.query(&query)
	nonce := or(query.Nonce, "")
	if err := evidence.CheckNonce(nonce); err != nil {
		r.checker.add("value_error", "Value error, "+err.Error(), []any{"query", "nonce"}, echo(nonce, 0))
	}
	if err := r.err(); err != nil {
		return err
	}
	format := ca.EvidenceFormat(or(query.Format, wire.EvidenceFormatJSON))
	document, err := s.ca.KeyEvidence(r.Context(), r.caller(), id, nonce, format)
	if err != nil {
		return err
	}
	if format == ca.EvidenceDER {
		return attach(w, "application/octet-stream", fmt.Sprintf("ca_%d_key_evidence.der", id), document)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(document) // as it was signed; a client that hung up does not read it
	return nil
}

func (s *server) drillKey(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	d, err := s.ca.Drill(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, keyDrill(d))
	return nil
}

func (s *server) listKeyDrills(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	drills, err := s.ca.Drills(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, each(drills, keyDrill))
	return nil
}

func (s *server) acceptKeyGrade(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	var body wire.KeyGradeAccept
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.AcceptKeyGrade(r.Context(), r.caller(), id, evidence.Grade(body.Accept), body.Reason)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.caOf(c))
	return nil
}

func keyDrill(d ca.KeyDrill) wire.KeyDrill {
	return wire.KeyDrill{
		At: d.At.UTC(), Trigger: wire.KeyDrillTrigger(d.Trigger), Grade: wire.KeyGrade(d.Grade), Conclusive: d.Conclusive,
		Reasons: each(d.Reasons, func(s string) string { return s }),
		Attacks: each(d.Attacks, func(a evidence.Attack) wire.KeyAttack {
			return wire.KeyAttack{Name: a.Name, Call: a.Call, Target: a.Target, Outcome: wire.KeyAttackOutcome(a.Outcome), Result: a.Result}
		}),
	}
}
