package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// The sizes of RSA attestation keys, in bits. The upper bound keeps a stranger's document from costing much.
const (
	minRSA = 2048
	maxRSA = 8192
)

// Sign makes the JSON document of a statement: for people, with the DER form in it. The signer is the attestation
// key, never the key that the statement is about. Errors of the signer are wrapped; nothing is returned that does not
// verify.
func Sign(s Statement, signer crypto.Signer) ([]byte, error) {
	d, err := sign(s, signer)
	if err != nil {
		return nil, err
	}
	return encodeFile(d.file())
}

// DER makes the document for machines: Evidence of draft-ietf-rats-pkix-key-attestation-07, in DER. Otherwise it is
// as [Sign].
func DER(s Statement, signer crypto.Signer) ([]byte, error) {
	d, err := sign(s, signer)
	if err != nil {
		return nil, err
	}
	return d.der, nil
}

// document is a document taken apart.
type document struct {
	statement Statement
	algorithm algorithm
	signature []byte
	tbs, der  []byte
}

func (d document) file() file {
	return file{
		Statement: d.statement, Evidence: d.der,
		Signature: fileSignature{Algorithm: d.algorithm.name, Value: d.signature},
	}
}

func sign(s Statement, signer crypto.Signer) (document, error) {
	publicKey, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return document{}, fmt.Errorf("encode attestation key: %w", err)
	}
	if s.AttestationKey.PublicKey == nil {
		s.AttestationKey.PublicKey = publicKey
	}
	if !bytes.Equal(publicKey, s.AttestationKey.PublicKey) {
		return document{}, errors.New("sign evidence: the signer is not the attestation key of the statement")
	}
	s, statement, err := normalize(s)
	if err != nil {
		return document{}, err
	}
	tbs, err := encodeTBS(s, statement)
	if err != nil {
		return document{}, fmt.Errorf("encode evidence: %w", err)
	}
	a, err := algorithmOf(signer.Public())
	if err != nil {
		return document{}, err
	}
	signature, err := signer.Sign(rand.Reader, a.digest(tbs), a.hash)
	if err != nil {
		return document{}, fmt.Errorf("sign evidence: %w", err)
	}
	der, err := encodeEvidence(tbs, publicKey, a, a.canonical(signature))
	if err != nil {
		return document{}, fmt.Errorf("encode evidence: %w", err)
	}
	d, err := open(der)
	if err != nil {
		return document{}, fmt.Errorf("check signed evidence: %w", err)
	}
	return d, nil
}

// normalize completes a statement and encodes it. Text that is no UTF-8, which PKCS#11 does not exclude, gets
// replacement characters on the way.
func normalize(s Statement) (Statement, []byte, error) {
	raw, err := encodeStatement(s.complete())
	if err != nil {
		return Statement{}, nil, err
	}
	var clean Statement
	if err := json.Unmarshal(raw, &clean); err != nil {
		return Statement{}, nil, fmt.Errorf("read statement: %w", err)
	}
	clean = clean.complete()
	if err := clean.check(); err != nil {
		return Statement{}, nil, fmt.Errorf("check statement: %w", err)
	}
	raw, err = encodeStatement(clean)
	return clean, raw, err
}

// algorithm is a way to sign.
type algorithm struct {
	name       string
	hash       crypto.Hash // 0: the message itself is signed
	identifier []byte      // DER AlgorithmIdentifier (RFC 5280, section 4.1.1.2)
	public     crypto.PublicKey
}

// algorithmOf is the one algorithm for a key: ECDSA on P-256 with SHA-256 and on P-384 with SHA-384 (RFC 5758), RSA
// PKCS #1 v1.5 with SHA-256 (RFC 4055), which every token has, or Ed25519 (RFC 8410).
func algorithmOf(public crypto.PublicKey) (algorithm, error) {
	a := algorithm{public: public}
	id := pkix.AlgorithmIdentifier{}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			a.name, a.hash, id.Algorithm = "ECDSA with SHA-256", crypto.SHA256, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
		case elliptic.P384():
			a.name, a.hash, id.Algorithm = "ECDSA with SHA-384", crypto.SHA384, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
		default:
			return algorithm{}, fmt.Errorf("an attestation key on %s is not supported", key.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return algorithm{}, fmt.Errorf("an RSA attestation key has %d to %d bits, not %d", minRSA, maxRSA, bits)
		}
		a.name, a.hash = "RSA PKCS #1 v1.5 with SHA-256", crypto.SHA256
		id = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
	case ed25519.PublicKey:
		a.name, id.Algorithm = "Ed25519", asn1.ObjectIdentifier{1, 3, 101, 112}
	default:
		return algorithm{}, fmt.Errorf("an attestation key of type %T is not supported", public)
	}
	var err error
	if a.identifier, err = asn1.Marshal(id); err != nil {
		return algorithm{}, fmt.Errorf("encode algorithm: %w", err)
	}
	return a, nil
}

func (a algorithm) digest(message []byte) []byte {
	if a.hash == 0 {
		return message
	}
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// canonical is the one form of a signature. ECDSA has two for each, s and n-s; the smaller s is taken, so that nobody
// can make a second valid document out of one. A signature that is none is returned as it is.
func (a algorithm) canonical(signature []byte) []byte {
	key, ok := a.public.(*ecdsa.PublicKey)
	if !ok {
		return signature
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &rs); err != nil || len(rest) > 0 {
		return signature
	}
	if n := key.Params().N; rs.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		rs.S.Sub(n, rs.S)
	}
	canonical, err := asn1.Marshal(rs)
	if err != nil {
		return signature
	}
	return canonical
}

func (a algorithm) verify(message, signature []byte) bool {
	digest := a.digest(message)
	switch key := a.public.(type) {
	case *ecdsa.PublicKey:
		return bytes.Equal(a.canonical(signature), signature) && ecdsa.VerifyASN1(key, digest, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, a.hash, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, signature)
	}
	return false
}
