package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"

	"signet/audit"
	"signet/fault"
	"signet/policy"
	"signet/signer"
)

// leaf is a certificate that every rule has accepted, before its serial is chosen.
type leaf struct {
	issuer     CA
	commonName string
	subjectDN  string // for people
	subject    []byte // DER
	typ        policy.CertificateType
	names      policy.Names
	validity   policy.Validity
	pathLength *int
	publicKey  crypto.PublicKey
	key        policy.KeySpec
	private    []byte // PKCS#8 DER to be kept sealed; nil for none
}

// Issue certifies a key: the caller's own, or one that is made here.
func (a *Authority) Issue(ctx context.Context, caller policy.Caller, r IssueRequest) (Issued, error) {
	// 1. May the caller, and may this certificate exist?
	issuer, err := a.issuing(ctx, r.IssuerID)
	if err != nil {
		return Issued{}, fmt.Errorf("find issuer: %w", err)
	}
	if err := a.mayIssue(caller, issuer, r.Type); err != nil {
		return Issued{}, err
	}
	l, err := a.plan(issuer, planRequest{
		typ: r.Type, commonName: r.CommonName, subjectDN: r.SubjectDN, validDays: r.ValidDays,
		dns: r.DNS, ips: r.IPs, emails: r.Emails,
	})
	var keyErr error
	if l.publicKey = r.PublicKey; r.PublicKey != nil {
		l.key, keyErr = policy.CheckPublicKey(r.PublicKey)
	} else {
		l.key, keyErr = policy.CheckKeySpec(r.Key)
	}
	if err := everyReason(err, keyErr); err != nil {
		return Issued{}, a.refuse(err)
	}

	// 2. The subject's key pair.
	var keyPEM []byte
	if r.PublicKey == nil {
		key, err := a.leafKey(ctx, l.key, r.KeepKey)
		if err != nil {
			return Issued{}, err
		}
		l.publicKey, l.private = key.public, key.private
		if r.KeepKey {
			defer clear(l.private)
			keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: l.private})
		}
	}
	cert, err := a.issue(ctx, caller, l)
	if err != nil {
		return Issued{}, err
	}
	return Issued{Certificate: cert, PrivateKeyPEM: keyPEM}, nil
}

// mayIssue checks the permission that the certificate type needs, and that the issuer certifies at all.
func (a *Authority) mayIssue(caller policy.Caller, issuer CA, t policy.CertificateType) error {
	action := policy.CreateCert
	if t == policy.CA {
		action = policy.CreateCA
	}
	if err := a.allow(policy.Allow(caller, action, issuer.object())); err != nil {
		return err
	}
	return a.refuseLocked(issuer)
}

// planRequest is what every kind of request has in common.
type planRequest struct {
	typ                   policy.CertificateType
	commonName, subjectDN string
	base                  policy.DN // of the CSR; used when subjectDN is empty
	validDays             int
	dns, ips, emails      []string
}

// plan applies the rules on issuer, subject, names and validity, and collects every reason against.
func (a *Authority) plan(issuer CA, r planRequest) (leaf, error) {
	now := a.cfg.Now()
	l := leaf{issuer: issuer, typ: r.typ, commonName: r.commonName}
	var reasons []error

	rules := issuer.issuerRules()
	if r.typ == policy.CA {
		pathLength, err := rules.CheckCA(now, nil)
		if err == nil && pathLength == nil {
			pathLength = new(int) // a CA outside Signet certifies leaves only, unless its issuer said more
		}
		l.pathLength = pathLength
		reasons = append(reasons, err)
	} else {
		reasons = append(reasons, rules.CheckLeaf(now))
	}

	var err error
	l.subject, l.subjectDN, err = subjectFor(r)
	reasons = append(reasons, err)
	l.names, err = policy.ResolveNames(policy.NameRequest{Type: r.typ, CommonName: r.commonName, DNS: r.dns, IPs: r.ips, Emails: r.emails})
	reasons = append(reasons, err)
	l.validity, err = policy.ResolveValidity(now, r.validDays, rules)
	reasons = append(reasons, err)
	return l, everyReason(reasons...)
}

// subjectFor makes common name and subject agree: a subject without common name gets it, one with another is
// refused.
func subjectFor(r planRequest) (der []byte, text string, err error) {
	dn, text := r.base, ""
	if r.subjectDN != "" {
		if dn, err = policy.ParseDN(r.subjectDN); err != nil {
			return nil, "", err
		}
		text = r.subjectDN
	}
	if n := dn.CommonNames(); n > 1 {
		return nil, "", &policy.Violation{Reasons: []string{fmt.Sprintf("the subject has %d common names; one is allowed", n)}}
	}
	cn := dn.CommonName()
	if r.subjectDN != "" && cn != "" && cn != r.commonName {
		return nil, "", &policy.Violation{Reasons: []string{
			fmt.Sprintf("common_name %q and the CN of subject_dn %q differ", r.commonName, cn)}}
	}
	if cn != r.commonName {
		if dn, err = dn.WithCommonName(r.commonName); err != nil {
			return nil, "", err
		}
		text = ""
	}
	if text == "" {
		text = dn.String()
	}
	der, err = dn.DER()
	return der, text, err
}

// issue takes an accepted leaf to a signed, recorded certificate.
func (a *Authority) issue(ctx context.Context, caller policy.Caller, l leaf) (Certificate, error) {
	// 3. What only the store knows.
	if err := a.checkRecords(ctx, l); err != nil {
		return Certificate{}, a.refuse(err)
	}

	// 4. Build and lint, no CA key.
	shard, err := a.chooseShard(ctx, l)
	if err != nil {
		return Certificate{}, err
	}
	draft, err := a.prepare(ctx, l.issuer, shard, l.template())
	if err != nil {
		return Certificate{}, a.refuse(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(l.publicKey)
	if err != nil {
		return Certificate{}, a.refuse(fault.Wrap(fault.Invalid, "the public key cannot be encoded", err))
	}
	fingerprint := sha256.Sum256(spki)
	c := Certificate{
		IssuerID: l.issuer.ID, CommonName: l.commonName, SubjectDN: l.subjectDN, Type: l.typ,
		KeyType: l.key.Type, KeySize: l.key.Size, ValidDays: l.validity.Days(),
		OrganizationID: l.issuer.OrganizationID, CreatedBy: &caller.UserID,
		PublicKeySHA256: fingerprint[:], Serial: draft.Serial(), Names: l.searchNames(), CRLShard: shard, TBS: draft.TBS(), NotBefore: l.validity.NotBefore, NotAfter: l.validity.NotAfter,
		State: Pending, CreatedAt: a.cfg.Now(), UpdatedAt: a.cfg.Now(),
	}
	var sealed []byte
	if l.private != nil {
		if sealed, err = a.cfg.Keys.Seal(ctx, l.private, sealedPlace(c)); err != nil {
			return Certificate{}, a.refuse(fmt.Errorf("seal leaf key: %w", err))
		}
	}

	// 5. Durable before the token is touched. A CA's own key is never certified as somebody's leaf: Reserve refuses it.
	if err := a.tokenSigns(ctx, l.issuer); err != nil {
		return Certificate{}, err
	}
	detail := fmt.Sprintf("%s certificate for %q, serial %s, issuer CA %d", c.Type, c.CommonName, c.Serial, c.IssuerID)
	e := a.event(ctx, caller, audit.CertReserve, c.OrganizationID, audit.ResourceCertificate, nil, detail)
	if c.ID, err = a.cfg.Store.Reserve(ctx, c, e); errors.Is(err, ErrCAKey) {
		return Certificate{}, a.refuse(&policy.Violation{Reasons: []string{ErrCAKey.Message}})
	} else if err != nil {
		return Certificate{}, fmt.Errorf("reserve certificate: %w", err)
	}
	ctx, cancel := finish(ctx, issueTimeout)
	defer cancel()

	// 6. Sign and verify.
	der, err := draft.Sign()
	if err != nil {
		return Certificate{}, a.notSigned(l.issuer, fmt.Errorf("sign certificate %d: %w", c.ID, err))
	}

	// 7. Complete. From here on the certificate exists.
	e = a.event(ctx, caller, audit.CertCreate, c.OrganizationID, audit.ResourceCertificate, &c.ID, detail)
	if c, err = a.cfg.Store.Complete(ctx, c.ID, der, sealed, e); err != nil {
		return Certificate{}, fmt.Errorf("complete certificate: %w", err)
	}
	if a.cfg.Hooks.Issued != nil {
		a.cfg.Hooks.Issued(c.Type)
	}
	return c, nil
}

// chooseShard spreads leaves evenly over the shards of their issuer.
func (a *Authority) chooseShard(ctx context.Context, l leaf) (int, error) {
	p, err := a.policyOf(ctx, l.issuer.ID)
	if err != nil {
		return 0, fmt.Errorf("find revocation policy of CA %d: %w", l.issuer.ID, err)
	}
	if p.Shards == 0 || l.typ == policy.CA {
		return 0, nil
	}
	return 1 + mathrand.IntN(p.Shards), nil
}

// searchNames are the names under which people look for the certificate.
func (l leaf) searchNames() string {
	names := append([]string{l.commonName}, l.names.DNS...)
	for _, ip := range l.names.IPs {
		names = append(names, ip.String())
	}
	names = append(names, l.names.Emails...)
	for i, name := range names {
		names[i] = strings.ToLower(name)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), "\n")
}

// checkRecords refuses what other records forbid: nothing is issued below a revoked CA, and no CA takes the name of its
// issuer.
func (a *Authority) checkRecords(ctx context.Context, l leaf) error {
	if l.issuer.ParentID != nil {
		chain, err := chainOf(ctx, l.issuer, a.above)
		if err != nil {
			return err
		}
		if err := revokedAmong(chain[1:]); err != nil {
			return err
		}
	}
	if l.typ == policy.CA {
		return refuseIssuersName(l.subject, l.issuer)
	}
	return nil
}

func (l leaf) template() signer.Template {
	usage := map[policy.CertificateType]signer.Usage{
		policy.Server: signer.UsageServer, policy.Client: signer.UsageClient,
		policy.DualPurpose: signer.UsageDualPurpose, policy.CA: signer.UsageCA,
	}[l.typ]
	return signer.Template{
		Subject: l.subject, PublicKey: l.publicKey, Usage: usage, PathLength: l.pathLength,
		NotBefore: l.validity.NotBefore, NotAfter: l.validity.NotAfter,
		DNS: l.names.DNS, IPs: l.names.IPs, Emails: l.names.Emails,
	}
}

// sealedPlace binds a sealed key to the certificate it belongs to.
func sealedPlace(c Certificate) []byte {
	return fmt.Appendf(nil, "certificate-key/%d/%s", c.IssuerID, c.Serial)
}
