package signer

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
)

// Issuer signs on behalf of one CA certificate. It is safe for concurrent use.
type Issuer struct {
	certificate *x509.Certificate
	algorithm   *algorithm
	key         crypto.Signer
}

// NewIssuer joins a CA certificate (DER) and its key. It fails when they do not belong together, or when the
// certificate may not sign certificates or has no subject key identifier.
func NewIssuer(certificate []byte, key crypto.Signer) (*Issuer, error) {
	c, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return nil, errors.New("the certificate is not a CA certificate")
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, errors.New("the CA certificate does not allow keyCertSign")
	case len(c.SubjectKeyId) == 0:
		return nil, errors.New("the CA certificate has no subject key identifier")
	case key == nil || !samePublicKey(c.PublicKey, key.Public()):
		return nil, errors.New("the key is not the one in the CA certificate")
	}
	a, err := algorithmOf(c.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Issuer{certificate: c, algorithm: a, key: key}, nil
}

// Ready reports whether the key is there to sign, without asking it for a signature: what is announced before it is
// signed need not be announced in vain. It waits for a key that may be back in a moment. Errors wrap [ErrKey].
func (i *Issuer) Ready() error { return ready(i.key) }

func ready(k crypto.Signer) error {
	key, ok := k.(interface{ Ready() error })
	if !ok {
		return nil
	}
	if err := key.Ready(); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	return nil
}

// Prepare builds the to-be-signed certificate and lints it, with a placeholder for the signature. The CA key is not
// touched. Errors are a [*LintError] or a defect of the template.
func (i *Issuer) Prepare(t Template) (*Draft, error) {
	b, err := build(t, i.certificate.RawSubject, i.certificate.SubjectKeyId, i.algorithm, i.certificate.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("build certificate: %w", err)
	}
	return b.draft(i.algorithm, i.key, i.certificate.PublicKey)
}

// PrepareRoot is Prepare for a self-signed CA certificate: key is both subject and issuer, t.PublicKey is ignored.
func PrepareRoot(t Template, key crypto.Signer) (*Draft, error) {
	if t.Usage != UsageCA {
		return nil, errors.New("build root certificate: only a CA certificate may be self-signed")
	}
	if key == nil {
		return nil, errors.New("build root certificate: no key")
	}
	t.PublicKey = key.Public()
	a, err := algorithmOf(t.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("build root certificate: %w", err)
	}
	b, err := build(t, t.Subject, nil, a, t.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("build root certificate: %w", err)
	}
	return b.draft(a, key, t.PublicKey)
}

// built is a certificate with a placeholder for its signature, which says what its template says.
type built struct {
	tbs         []byte
	certificate *x509.Certificate
}

// build makes the certificate that is linted. issuerKeyID is nil for a self-signed certificate, which is its own
// authority.
func build(t Template, issuer, issuerKeyID []byte, a *algorithm, pub crypto.PublicKey) (built, error) {
	c, err := t.certificate()
	if err != nil {
		return built{}, err
	}
	return assemble(c, issuer, issuerKeyID, a, pub)
}

// assemble completes the certificate and encodes it; pub is the issuer's public key.
func assemble(c *x509.Certificate, issuer, issuerKeyID []byte, a *algorithm, pub crypto.PublicKey) (built, error) {
	c.SignatureAlgorithm = a.id
	c.AuthorityKeyId = issuerKeyID
	if issuerKeyID == nil {
		c.AuthorityKeyId = c.SubjectKeyId
	}
	tbs, err := encode(c, &x509.Certificate{RawSubject: issuer, SubjectKeyId: issuerKeyID}, pub)
	if err != nil {
		return built{}, err
	}
	parsed, err := x509.ParseCertificate(a.join(tbs, []byte(a.placeholder)))
	if err != nil {
		return built{}, fmt.Errorf("parse what was built: %w", err)
	}
	if err := compare(parsed, c, issuer); err != nil {
		return built{}, fmt.Errorf("compare what was built with the template: %w", err)
	}
	return built{tbs: tbs, certificate: parsed}, nil
}

// encode returns the TBSCertificate that [x509.CreateCertificate] gives its signer.
func encode(c, parent *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	k := &recorder{public: pub}
	_, err := x509.CreateCertificate(rand.Reader, c, parent, c.PublicKey, k)
	if errors.Is(err, errRecorded) {
		return k.message, nil
	}
	if err == nil {
		err = errors.New("it was not given to the signer")
	}
	return nil, err
}

var errRecorded = errors.New("recorded, not signed")

// recorder is a [crypto.MessageSigner] that keeps what it is given and signs nothing.
type recorder struct {
	public  crypto.PublicKey
	message []byte
}

func (k *recorder) Public() crypto.PublicKey { return k.public }

func (k *recorder) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("only the digest is known")
}

func (k *recorder) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	k.message = message
	return nil, errRecorded
}
