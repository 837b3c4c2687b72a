package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"signet/audit"
	"signet/fault"
	"signet/policy"
	"signet/signer"
)

// CreateCA makes a CA: a key in the token, and a certificate for it, signed by the key itself or by the parent's.
// The new CA belongs to the parent's organization, or to the caller's when it is a root.
func (a *Authority) CreateCA(ctx context.Context, caller policy.Caller, r CreateCARequest) (CA, error) {
	// 1. May the caller, and may this CA exist?
	parent, c, subject, err := a.authorizeCA(ctx, caller, r)
	if err != nil {
		return CA{}, a.refuse(err)
	}

	// 2. Announce the key before the token makes it.
	detail := fmt.Sprintf("create CA %q, subject %q, %s-%d, token %q, CKA_ID %x", c.Name, c.SubjectDN, c.KeyType, c.KeySize, c.Token, c.KeyID)
	if g := c.Proof.Accepted.Grade; g != "" {
		detail += fmt.Sprintf(", a key of grade %s was accepted", g)
	}
	c, err = a.cfg.Store.CreateCA(ctx, c, a.event(ctx, caller, audit.CAReserve, c.OrganizationID, audit.ResourceCA, nil, detail))
	if err != nil {
		return CA{}, fmt.Errorf("record CA: %w", err)
	}
	ctx, cancel := finish(ctx, createTimeout)
	defer cancel()

	// 3. The key is born in the token, read back and attacked before it signs anything.
	key, err := a.cfg.Keys.Generate(ctx, KeyRequest{
		Token: c.Token, ID: c.KeyID, Label: Slug(c.Name, c.ID), Spec: policy.KeySpec{Type: c.KeyType, Size: c.KeySize},
	})
	if err != nil {
		return CA{}, a.refuse(fmt.Errorf("generate key of CA %d: %w", c.ID, err))
	}
	if c.PublicKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return CA{}, fmt.Errorf("encode public key of CA %d: %w", c.ID, err)
	}
	if c.Proof, err = a.proveNewKey(ctx, caller, c); err != nil {
		return CA{}, a.refuse(err)
	}

	// 4. Build and lint, no CA key.
	draft, err := a.prepareCA(ctx, parent, c, subject, key)
	if err != nil {
		return CA{}, a.refuse(errors.Join(err, a.discard(ctx, caller, c, "its certificate could not be prepared")))
	}
	c.Serial, c.TBS = draft.Serial(), draft.TBS()

	// 5. Durable before the token signs.
	e := a.event(ctx, caller, audit.CAReserve, c.OrganizationID, audit.ResourceCA, &c.ID, "sign certificate with serial "+c.Serial)
	if err := a.cfg.Store.ReserveCA(ctx, c, e); err != nil {
		return CA{}, errors.Join(fmt.Errorf("reserve CA %d: %w", c.ID, err), a.discard(ctx, caller, c, "its certificate could not be reserved"))
	}

	// 6. Sign and verify.
	der, err := draft.Sign()
	if err != nil {
		signs := c
		if parent != nil {
			signs = *parent
		}
		return CA{}, a.notSigned(signs, fmt.Errorf("sign certificate of CA %d: %w", c.ID, err))
	}

	// 7. Complete. From here on the CA exists.
	e = a.event(ctx, caller, audit.CACreate, c.OrganizationID, audit.ResourceCA, &c.ID, detail+", serial "+c.Serial)
	if c, err = a.cfg.Store.CompleteCA(ctx, c.ID, der, e); err != nil {
		return CA{}, fmt.Errorf("complete CA: %w", err)
	}
	if a.cfg.Hooks.Issued != nil {
		a.cfg.Hooks.Issued(policy.CA)
	}

	// 8. Its first, empty CRL. If that fails the background work tries again.
	a.publish(ctx, ListScope{CAID: c.ID})
	return c, nil
}

// proveNewKey examines a key that has just been made. One that is not good enough is destroyed again, and the
// announcement is closed: nothing was signed.
func (a *Authority) proveNewKey(ctx context.Context, caller policy.Caller, c CA) (KeyProof, error) {
	e, err := a.examine(ctx, c.KeyRef(), AtCreation)
	if err != nil {
		return KeyProof{}, errors.Join(fmt.Errorf("prove key of CA %d: %w", c.ID, err), a.discard(ctx, caller, c, "its key could not be examined"))
	}
	needs := c.Proof.Needs()
	if !e.drill.Grade.AtLeast(needs) {
		why := fmt.Sprintf("its key was %s, and %s is needed: %s", e.drill.Grade, needs, e.drill.shortfall())
		if err := a.discard(ctx, caller, c, why); err != nil {
			return KeyProof{}, err
		}
		return KeyProof{}, refuseGrade(e.drill, needs, "it was destroyed again and signed nothing", "accept_key_grade")
	}
	proof := c.Proof
	proof.Grade = e.drill.Grade
	e.drill.CAID = c.ID
	if err := a.cfg.Store.ProveCA(ctx, c.ID, c.Proof, proof, &e.drill); err != nil {
		return KeyProof{}, errors.Join(fmt.Errorf("record drill of CA %d: %w", c.ID, err), a.discard(ctx, caller, c, "its drill could not be recorded"))
	}
	return proof, nil
}

// discardTimeout is how long a key that is of no use has to be destroyed; the time to make it may be over.
const discardTimeout = 15 * time.Second

// discard destroys a key that has signed nothing and closes its announcement. The announcement is left to Reconcile when
// that fails here.
func (a *Authority) discard(ctx context.Context, caller policy.Caller, c CA, why string) error {
	ctx, cancel := finish(ctx, discardTimeout)
	defer cancel()
	outcome := "destroyed"
	failure := a.cfg.Keys.Destroy(ctx, c.Token, c.KeyID)
	if failure != nil {
		outcome = "left in the token, which did not destroy it"
		failure = fmt.Errorf("destroy refused key %x: %w", c.KeyID, failure)
	}
	e := a.event(ctx, caller, audit.CAKeyRefuse, c.OrganizationID, audit.ResourceCA, &c.ID,
		fmt.Sprintf("no CA %q: %s; CKA_ID %x was %s", c.Name, why, c.KeyID, outcome))
	r := Revocation{At: a.cfg.Now(), Text: "key refused"}
	if err := a.cfg.Store.AbandonCA(ctx, c.ID, r, e); err != nil {
		return errors.Join(failure, fmt.Errorf("abandon CA %d: %w", c.ID, err))
	}
	return failure
}

// authorizeCA decides on a request. It returns the parent, nil for a root, the record to be made and its subject.
func (a *Authority) authorizeCA(ctx context.Context, caller policy.Caller, r CreateCARequest) (*CA, CA, []byte, error) {
	parent, err := a.parentOf(ctx, caller, r.ParentID)
	if err != nil {
		return nil, CA{}, nil, err
	}
	if parent != nil {
		if err := a.mayCertify(ctx, *parent); err != nil {
			return nil, CA{}, nil, err
		}
	}
	accepted, err := a.acceptance(caller, r.AcceptKeyGrade, "at creation")
	if fault.Is(err, fault.Forbidden) {
		return nil, CA{}, nil, err
	}
	c, subject, planErr := a.planCA(caller, parent, r)
	if err := everyReason(err, planErr); err != nil {
		return nil, CA{}, nil, err
	}
	c.Proof.Accepted = accepted
	return parent, c, subject, a.rehearse(ctx, parent, c, subject)
}

// prepareCA builds and lints the certificate of a CA with this key.
func (a *Authority) prepareCA(ctx context.Context, parent *CA, c CA, subject []byte, key crypto.Signer) (*signer.Draft, error) {
	t := signer.Template{
		Subject: subject, PublicKey: key.Public(), Usage: signer.UsageCA, PathLength: c.PathLength,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
	if parent == nil {
		return signer.PrepareRoot(t, key)
	}
	return a.prepare(ctx, *parent, 0, t)
}

// rehearse lints the certificate with a throwaway key in the subject's place, so that nothing the caller can say
// leaves a key behind in the token.
func (a *Authority) rehearse(ctx context.Context, parent *CA, c CA, subject []byte) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate throwaway key: %w", err)
	}
	_, err = a.prepareCA(ctx, parent, c, subject, key)
	return err
}

// mayCertify checks what the parent's own record does not say: that its chain is short enough for one more
// certificate, that none of it is revoked and that it is not locked.
func (a *Authority) mayCertify(ctx context.Context, parent CA) error {
	if err := a.refuseLocked(parent); err != nil {
		return err
	}
	chain, err := a.chainOf(ctx, parent)
	if err != nil {
		return err
	}
	if len(chain) >= maxChain {
		return fault.New(fault.Invalid, "CA %d is %d certificates below its root; deeper chains are not supported", parent.ID, len(chain)-1)
	}
	return revokedAmong(chain[1:])
}

// parentOf finds the parent and checks that the caller may create a CA below it, or a root when there is none.
func (a *Authority) parentOf(ctx context.Context, caller policy.Caller, id *int64) (*CA, error) {
	if id == nil {
		return nil, a.allow(policy.AllowRootCA(caller))
	}
	parent, err := a.cfg.Store.CA(ctx, *id)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "Parent CA %d not found", *id)
	}
	if err != nil {
		return nil, fmt.Errorf("find parent CA: %w", err)
	}
	return &parent, a.allow(policy.Allow(caller, policy.CreateCA, parent.object()))
}

// planCA applies the rules to a request. It returns the record to be made and the DER of its subject.
func (a *Authority) planCA(caller policy.Caller, parent *CA, r CreateCARequest) (CA, []byte, error) {
	now := a.cfg.Now()
	c := CA{
		Name: r.Name, Description: r.Description, ParentID: r.ParentID, CRLBaseURL: r.CRLBaseURL, AllowLeafCerts: true,
		PathLength: r.PathLength, OrganizationID: caller.OrganizationID, CreatedBy: creator(caller),
		State: Pending, KeyID: make([]byte, 16), CreatedAt: now, UpdatedAt: now,
	}
	if r.AllowLeafCerts != nil {
		c.AllowLeafCerts = *r.AllowLeafCerts
	}
	rand.Read(c.KeyID)

	var reasons []error
	var rules *policy.Issuer
	if parent != nil {
		c.OrganizationID = parent.OrganizationID
		rules = parent.issuerRules()
		pathLength, err := rules.CheckCA(now, r.PathLength)
		c.PathLength = pathLength
		reasons = append(reasons, err)
	} else if r.PathLength != nil && *r.PathLength < 0 {
		reasons = append(reasons, &policy.Violation{Reasons: []string{"path_length must not be negative"}})
	}
	reasons = append(reasons, checkName(r.Name))
	var err error
	c.Token, err = a.token(r.Token)
	reasons = append(reasons, err)

	dn, err := policy.ParseDN(r.SubjectDN)
	reasons = append(reasons, err)
	key, err := policy.CheckKeySpec(r.Key)
	reasons = append(reasons, err)
	c.KeyType, c.KeySize = key.Type, key.Size
	validity, err := policy.ResolveValidity(now, r.ValidDays, rules)
	reasons = append(reasons, err)
	if err := everyReason(reasons...); err != nil {
		return CA{}, nil, err
	}
	c.SubjectDN = r.SubjectDN
	c.NotBefore, c.NotAfter, c.ValidDays = validity.NotBefore, validity.NotAfter, validity.Days()
	subject, err := dn.DER()
	if err == nil && parent != nil {
		err = refuseIssuersName(subject, *parent)
	}
	return c, subject, err
}

// creator is who owns what a caller makes; nobody, when it is made at the command line of the server.
func creator(caller policy.Caller) *int64 {
	if caller.UserID == 0 {
		return nil
	}
	return &caller.UserID
}

// refuseIssuersName keeps a CA from taking the name of its issuer: relying parties find CRLs and issuers by name
// (RFC 5280, section 4.1.2.6).
func refuseIssuersName(subject []byte, issuer CA) error {
	cert, err := x509.ParseCertificate(issuer.Certificate)
	if err != nil {
		return fmt.Errorf("parse certificate of CA %d: %w", issuer.ID, err)
	}
	if bytes.Equal(cert.RawSubject, subject) {
		return &policy.Violation{Reasons: []string{"the subject is that of the issuing CA; a CA needs a name of its own"}}
	}
	return nil
}

// prepare builds and lints a certificate of an existing issuer, to be revoked in this shard of its lists.
func (a *Authority) prepare(ctx context.Context, issuer CA, shard int, t signer.Template) (*signer.Draft, error) {
	u := a.urls(issuer)
	t.CRLURL, t.IssuerURL, t.OCSPURL = u.list(shard, false), u.certificate(), u.ocsp()
	s, err := a.issuer(ctx, issuer)
	if err != nil {
		return nil, err
	}
	draft, err := s.Prepare(t)
	if err != nil {
		return nil, fmt.Errorf("prepare certificate: %w", err)
	}
	return draft, nil
}

func checkName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return &policy.Violation{Reasons: []string{"name must not be empty"}}
	case utf8.RuneCountInString(name) > 255:
		return &policy.Violation{Reasons: []string{"name must have at most 255 characters"}}
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return &policy.Violation{Reasons: []string{"name must not contain control characters"}}
	}
	return nil
}

// everyReason joins the violations among errs into one; any other error wins over them.
func everyReason(errs ...error) error {
	joined := &policy.Violation{}
	for _, err := range errs {
		if err == nil {
			continue
		}
		v, ok := err.(*policy.Violation)
		if !ok {
			return err
		}
		for _, reason := range v.Reasons {
			if !slices.Contains(joined.Reasons, reason) {
				joined.Reasons = append(joined.Reasons, reason)
			}
		}
	}
	if len(joined.Reasons) == 0 {
		return nil
	}
	return joined
}
