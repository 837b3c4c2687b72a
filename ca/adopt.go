package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
	"signet/signer"
)

// AdoptRequest asks for a CA whose key is in a token already. It has a certificate, or gets a self-signed one.
type AdoptRequest struct {
	Token          string // a configured name; "": the default token
	KeyID          []byte // CKA_ID
	Name           string
	Description    *string
	CertificateDER []byte // of the CA; nil: sign one for SubjectDN and ValidDays
	SubjectDN      string
	ValidDays      int
	PathLength     *int // of the certificate to be signed; nil: unlimited
	CRLBaseURL     *string
	OrganizationID *int64         // that the CA is going to belong to; a child belongs to its parent's
	AcceptGrade    evidence.Grade // Asserted or Imported; "": none below Drilled
	Reason         string         // why a lower grade is accepted
}

// adoption is a request that the rules have accepted.
type adoption struct {
	ca      CA
	parent  *CA
	subject []byte // DER; of a certificate to be signed
	signs   bool   // there is no certificate yet
}

// Adopt makes a CA of a key that was not made for it. Superusers and operators only. The key is read back and
// attacked, without changing it, and graded as what it is; one that says it can leave its token is always refused. The
// token keeps a key that was refused.
func (a *Authority) Adopt(ctx context.Context, caller policy.Caller, r AdoptRequest) (CA, error) {
	// 1. May the caller, and is there such a key?
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return CA{}, err
	}
	token, err := a.token(r.Token)
	if err != nil {
		return CA{}, a.refuse(err)
	}
	key, err := a.cfg.Keys.Inspect(ctx, KeyRef{Token: token, ID: r.KeyID})
	if err != nil {
		return CA{}, a.refuse(fmt.Errorf("inspect key %x: %w", r.KeyID, err))
	}

	// 2. May this CA exist?
	plan, err := a.planAdoption(ctx, caller, r, token, key)
	if err != nil {
		return CA{}, a.refuse(err)
	}

	// 3. What is the key worth? Nothing is announced for one that is refused.
	e, err := a.examine(ctx, plan.ca.KeyRef(), AtAdoption)
	if err != nil {
		return CA{}, a.refuse(err)
	}
	if err := a.admit(ctx, caller, plan.ca, e.drill); err != nil {
		return CA{}, err
	}
	private, err := a.cfg.Keys.Signer(ctx, plan.ca.KeyRef())
	if err != nil {
		return CA{}, a.refuse(fmt.Errorf("find key %x: %w", r.KeyID, err))
	}

	// 4. To the records, in the steps of CreateCA.
	c, err := a.recordAdoption(ctx, caller, plan, private, e.drill)
	if err != nil {
		return CA{}, a.refuse(err)
	}
	if a.cfg.Hooks.Issued != nil && plan.signs {
		a.cfg.Hooks.Issued(policy.CA)
	}
	a.publish(ctx, ListScope{CAID: c.ID})
	return c, nil
}

// admit refuses a key whose grade nobody accepted, on the record.
func (a *Authority) admit(ctx context.Context, caller policy.Caller, c CA, d KeyDrill) error {
	needs := c.Proof.Needs()
	if d.Grade.AtLeast(needs) {
		return nil
	}
	a.refused("policy")
	e := a.event(ctx, caller, audit.CAKeyRefuse, c.OrganizationID, audit.ResourceCA, nil,
		fmt.Sprintf("CA %q not adopted: key %x in token %q is %s, and %s is needed: %s", c.Name, c.KeyID, c.Token, d.Grade, needs, d.shortfall()))
	if err := a.cfg.Store.Record(ctx, e); err != nil {
		return fmt.Errorf("record refusal: %w", err)
	}
	return refuseGrade(d, needs, "it was not adopted and is in the token as before", "the acceptance of grade")
}

// planAdoption applies the rules to a request and its certificate.
func (a *Authority) planAdoption(ctx context.Context, caller policy.Caller, r AdoptRequest, token string, key evidence.Key) (adoption, error) {
	public, err := x509.ParsePKIXPublicKey(key.PublicKey)
	if err != nil {
		return adoption{}, fault.Wrap(fault.Invalid, "the public key of the token cannot be read", err)
	}
	spec, err := policy.CheckPublicKey(public)
	if err != nil {
		return adoption{}, err
	}
	accepted, err := a.acceptance(caller, r.AcceptGrade, r.Reason)
	if err := everyReason(err, checkName(r.Name)); err != nil {
		return adoption{}, err
	}
	now := a.cfg.Now()
	plan := adoption{ca: CA{
		Name: r.Name, Description: r.Description, KeyType: spec.Type, KeySize: spec.Size, AllowLeafCerts: true,
		CRLBaseURL: r.CRLBaseURL, OrganizationID: r.OrganizationID, CreatedBy: creator(caller),
		Token: token, KeyID: r.KeyID, PublicKey: key.PublicKey, Proof: KeyProof{Accepted: accepted},
		State: Pending, CreatedAt: now, UpdatedAt: now,
	}}
	if r.CertificateDER == nil {
		return plan, a.planOwnRoot(&plan, r)
	}
	return plan, a.planCertificate(ctx, &plan, r.CertificateDER, public)
}

// planOwnRoot applies the rules to a certificate that is to be self-signed.
func (a *Authority) planOwnRoot(plan *adoption, r AdoptRequest) error {
	dn, err := policy.ParseDN(r.SubjectDN)
	validity, validityErr := policy.ResolveValidity(a.cfg.Now(), r.ValidDays, nil)
	if err := everyReason(err, validityErr); err != nil {
		return err
	}
	if r.PathLength != nil && *r.PathLength < 0 {
		return &policy.Violation{Reasons: []string{"path_length must not be negative"}}
	}
	c := &plan.ca
	c.SubjectDN, c.PathLength = r.SubjectDN, r.PathLength
	c.NotBefore, c.NotAfter, c.ValidDays = validity.NotBefore, validity.NotAfter, validity.Days()
	plan.signs = true
	plan.subject, err = dn.DER()
	return err
}

// planCertificate takes over what a certificate says, if it is one of a CA that may sign today with this key.
func (a *Authority) planCertificate(ctx context.Context, plan *adoption, der []byte, public crypto.PublicKey) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fault.Wrap(fault.Invalid, "the certificate cannot be read: "+err.Error(), err)
	}
	now := a.cfg.Now()
	var reasons []string
	check := func(ok bool, reason string) {
		if !ok {
			reasons = append(reasons, reason)
		}
	}
	same, comparable := public.(interface{ Equal(crypto.PublicKey) bool })
	check(comparable && same.Equal(cert.PublicKey), "the certificate is of another key")
	check(cert.BasicConstraintsValid && cert.IsCA, "the certificate is not that of a CA (RFC 5280, section 4.2.1.9)")
	check(cert.KeyUsage&x509.KeyUsageCertSign != 0, "the certificate does not allow keyCertSign (RFC 5280, section 4.2.1.3)")
	check(cert.KeyUsage&x509.KeyUsageCRLSign != 0, "the certificate does not allow cRLSign (RFC 5280, section 4.2.1.3)")
	check(!now.Before(cert.NotBefore) && !now.Truncate(time.Second).After(cert.NotAfter), "the certificate is not valid now")
	if _, err := signer.ParseSerial(cert.SerialNumber.Text(16)); err != nil {
		reasons = append(reasons, err.Error()+" (RFC 5280, section 4.1.2.2)")
	}
	dn, err := policy.DNFromDER(cert.RawSubject)
	if err != nil || dn.IsEmpty() {
		reasons = append(reasons, "the subject of the certificate cannot be taken over")
	}
	if len(reasons) > 0 {
		return &policy.Violation{Reasons: reasons}
	}
	c := &plan.ca
	c.SubjectDN, c.Certificate, c.Serial = dn.String(), cert.Raw, cert.SerialNumber.Text(16)
	c.NotBefore, c.NotAfter = cert.NotBefore.UTC(), cert.NotAfter.UTC()
	c.ValidDays = max(1, int(cert.NotAfter.Sub(cert.NotBefore)/(24*time.Hour)))
	if cert.MaxPathLen > 0 || cert.MaxPathLenZero {
		c.PathLength = &cert.MaxPathLen
	}
	if bytes.Equal(cert.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(cert) == nil {
		return nil
	}
	return a.planParent(ctx, plan, cert)
}

// planParent finds the CA that signed a certificate among ours, and holds the certificate to it (RFC 5280, section 6.1).
func (a *Authority) planParent(ctx context.Context, plan *adoption, cert *x509.Certificate) error {
	parent, err := a.issuerOf(ctx, cert)
	if err != nil {
		return err
	}
	chain, err := a.chainOf(ctx, parent)
	if err != nil {
		return err
	}
	if err := revokedAmong(chain); err != nil {
		return err
	}
	if err := refuseIssuersName(cert.RawSubject, parent); err != nil {
		return err
	}
	if len(chain) >= maxChain {
		return fault.New(fault.Invalid, "CA %d is %d certificates below its root; deeper chains are not supported", parent.ID, len(chain)-1)
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: a.cfg.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for i, c := range chain {
		issuer, err := x509.ParseCertificate(c.Certificate)
		if err != nil {
			return fmt.Errorf("parse certificate of CA %d: %w", c.ID, err)
		}
		if pool := options.Intermediates; i < len(chain)-1 {
			pool.AddCert(issuer)
		} else {
			options.Roots.AddCert(issuer)
		}
	}
	if _, err := cert.Verify(options); err != nil {
		return fault.Wrap(fault.Invalid, "the certificate does not validate below its issuer: "+err.Error(), err)
	}
	plan.parent = &parent
	plan.ca.ParentID, plan.ca.OrganizationID = &parent.ID, parent.OrganizationID
	plan.ca.PathLength, err = parent.issuerRules().CheckCA(a.cfg.Now(), plan.ca.PathLength)
	return err
}

// issuerOf finds the CA that signed a certificate.
func (a *Authority) issuerOf(ctx context.Context, cert *x509.Certificate) (CA, error) {
	const perPage = 200
	for page := (Page{Limit: perPage}); ; {
		found, _, err := a.cfg.Store.CAs(ctx, Scope{All: true}, page)
		if err != nil {
			return CA{}, fmt.Errorf("look for issuer: %w", err)
		}
		for _, c := range found {
			page.After = c.ID
			issuer, err := x509.ParseCertificate(c.Certificate)
			if err == nil && bytes.Equal(issuer.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(issuer) == nil {
				return c, nil
			}
		}
		if len(found) < perPage {
			return CA{}, fault.New(fault.Invalid, "the certificate is neither self-signed nor issued by a CA here: adopt its issuer %q first", cert.Issuer)
		}
	}
}

// recordAdoption announces the CA, records its drill, and completes it with its certificate, which is signed now if
// there is none.
func (a *Authority) recordAdoption(ctx context.Context, caller policy.Caller, plan adoption, key crypto.Signer, d KeyDrill) (CA, error) {
	c := plan.ca
	var draft *signer.Draft
	var err error
	if plan.signs {
		if draft, err = a.prepareCA(ctx, nil, c, plan.subject, key); err != nil {
			return CA{}, err
		}
		c.Serial, c.TBS = draft.Serial(), draft.TBS()
	} else if _, err := signer.NewIssuer(c.Certificate, key); err != nil {
		return CA{}, fault.Wrap(fault.Invalid, "the certificate cannot be used: "+err.Error(), err)
	}
	detail := fmt.Sprintf("adopt CA %q, subject %q, %s-%d, token %q, CKA_ID %x, key of grade %s", c.Name, c.SubjectDN, c.KeyType, c.KeySize, c.Token, c.KeyID, d.Grade)
	if accepted := c.Proof.Accepted; accepted.Grade != "" {
		detail += fmt.Sprintf(" (%s was accepted, %q)", accepted.Grade, accepted.Reason)
	}
	event := func(action audit.Action, detail string) audit.Event {
		return a.event(ctx, caller, action, c.OrganizationID, audit.ResourceCA, nil, detail)
	}
	ctx, cancel := finish(ctx, createTimeout)
	defer cancel()
	announced, err := a.cfg.Store.CreateCA(ctx, c, event(audit.CAReserve, detail))
	if err != nil {
		return CA{}, fmt.Errorf("record CA: %w", err)
	}
	c.ID, d.CAID = announced.ID, announced.ID
	was := c.Proof
	c.Proof.Grade = d.Grade
	if err := a.cfg.Store.ProveCA(ctx, c.ID, was, c.Proof, &d); err != nil {
		return CA{}, a.closed(ctx, caller, c, fmt.Errorf("record drill of CA %d: %w", c.ID, err))
	}
	detail += ", serial " + c.Serial
	if !plan.signs {
		adopted, err := a.cfg.Store.AdoptCA(ctx, c, event(audit.CAAdopt, detail))
		return adopted, a.closed(ctx, caller, c, err)
	}
	if err := a.cfg.Store.ReserveCA(ctx, c, event(audit.CAReserve, "sign certificate with serial "+c.Serial)); err != nil {
		return CA{}, a.closed(ctx, caller, c, fmt.Errorf("reserve CA %d: %w", c.ID, err))
	}
	der, err := draft.Sign()
	if err != nil {
		return CA{}, a.notSigned(c, fmt.Errorf("sign certificate of CA %d: %w", c.ID, err))
	}
	if c, err = a.cfg.Store.CompleteCA(ctx, c.ID, der, event(audit.CAAdopt, detail)); err != nil {
		return CA{}, fmt.Errorf("complete CA: %w", err)
	}
	return c, nil
}

// closed closes the announcement of an adoption that the store refused, so that it need not wait for Reconcile.
func (a *Authority) closed(ctx context.Context, caller policy.Caller, c CA, refusal error) error {
	if refusal == nil {
		return nil
	}
	e := a.event(ctx, caller, audit.CAAbandon, c.OrganizationID, audit.ResourceCA, &c.ID, fmt.Sprintf("CA %q not adopted; nothing was signed", c.Name))
	if err := a.cfg.Store.AbandonCA(ctx, c.ID, Revocation{At: a.cfg.Now(), Text: "not adopted"}, e); err != nil {
		a.failed("reconcile", fmt.Errorf("abandon CA %d: %w", c.ID, err))
	}
	return fmt.Errorf("adopt CA: %w", refusal)
}
