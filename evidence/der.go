package evidence

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// draftVersion is TbsEvidence.version (draft-ietf-rats-pkix-key-attestation-07, section 5).
const draftVersion = 1

// claims builds the claims of one element.
type claims struct{ *cryptobyte.Builder }

// add adds a ReportedClaim: its type, and the value that build writes.
func (c claims) add(claimType []byte, build func(*cryptobyte.Builder)) {
	c.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, claimType)
		build(b)
	})
}

func (c claims) octets(claimType, value []byte) {
	c.add(claimType, func(b *cryptobyte.Builder) { b.AddASN1OctetString(value) })
}

// text adds what is known: the draft has no claim for "unknown".
func (c claims) text(claimType []byte, value string) {
	if value != "" {
		c.add(claimType, func(b *cryptobyte.Builder) { addText(b, value) })
	}
}

// encodeTBS is TbsEvidence: what is signed. The statement must be complete, statement its one encoding.
func encodeTBS(s Statement, statement []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(draftVersion)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addElement(b, oidElementTransaction, func(c claims) { c.transaction(s, statement) })
			addElement(b, oidElementPlatform, func(c claims) { c.platform(s.Key.Token) })
			addElement(b, oidElementKey, func(c claims) {
				c.key(s.Key)
				c.text(oidGrade, string(s.Grade))
				if s.Drill != nil {
					c.add(oidDrill, func(b *cryptobyte.Builder) { addDrill(b, *s.Drill) })
				}
			})
			addElement(b, oidElementKey, func(c claims) { c.key(s.AttestationKey) })
		})
	})
	return b.Bytes()
}

func addElement(b *cryptobyte.Builder, elementType []byte, build func(claims)) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, elementType)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { build(claims{b}) })
	})
}

// transaction is section 5.3, and the whole statement.
func (c claims) transaction(s Statement, statement []byte) {
	if s.Nonce != "" {
		c.octets(oidNonce, []byte(s.Nonce))
	}
	c.add(oidTimestamp, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(s.Time) })
	c.octets(oidAKSPKI, s.AttestationKey.PublicKey)
	c.octets(oidStatement, statement)
}

// platform is section 5.1. PKCS#11 gives no OEM id, hardware version, FIPS mode or uptime that could be told apart
// from a guess, so those claims are left out.
func (c claims) platform(t Token) {
	c.text(oidVendor, t.Manufacturer)
	if t.Model != "" {
		c.octets(oidHWModel, []byte(t.Model))
	}
	c.text(oidHWSerial, t.Serial)
	c.text(oidSWVersion, t.Firmware)
	c.add(oidModule, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, value := range []string{t.Name, t.Label, t.Module.Path, t.Module.SHA256, t.Module.Description, t.Module.Version, t.Module.Cryptoki} {
				addText(b, value)
			}
		})
	})
}

// key is section 5.2, and every attribute under its PKCS#11 name.
func (c claims) key(k Key) {
	c.text(oidKeyIdentifier, hex.EncodeToString(k.ID))
	c.octets(oidKeySPKI, k.PublicKey)
	for _, claim := range booleanClaims {
		if value, known := k.Attributes[claim.attribute].(bool); known {
			c.add(claim.oid, func(b *cryptobyte.Builder) { b.AddASN1Boolean(value) })
		}
	}
	c.add(oidKeyPurpose, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, capability := range capabilities {
				if k.Attributes[capability.attribute] == true {
					addOID(b, capability.oid)
				}
			}
		})
	})
	c.add(oidAttributes, func(b *cryptobyte.Builder) { addAttributes(b, k.Attributes) })
}

func addAttributes(b *cryptobyte.Builder, attributes map[string]any) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, name := range slices.Sorted(maps.Keys(attributes)) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addText(b, name)
				switch value := attributes[name].(type) {
				case bool:
					b.AddASN1Boolean(value)
				case string:
					addText(b, value)
				case []string:
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						for _, item := range value {
							addText(b, item)
						}
					})
				}
			})
		}
	})
}

func addDrill(b *cryptobyte.Builder, d Drill) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1GeneralizedTime(d.At)
		addText(b, d.Token)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, a := range d.Attacks {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, value := range []string{a.Name, a.Call, a.Target, string(a.Outcome), a.Result} {
						addText(b, value)
					}
				})
			}
		})
	})
}

// encodeEvidence is Evidence with one SignatureBlock, whose signer is named by its public key.
func encodeEvidence(tbs, publicKey []byte, a algorithm, signature []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignerIdentifier
					b.AddASN1(signerTag, func(b *cryptobyte.Builder) { b.AddBytes(publicKey) })
				})
				b.AddBytes(a.identifier)
				b.AddASN1OctetString(signature)
			})
		})
	})
	return b.Bytes()
}

// signerTag is SignerIdentifier.subjectPublicKeyInfo.
var signerTag = asn1.Tag(1).ContextSpecific().Constructed()

// decodeEvidence finds the statement and the signature in a DER document. It reads no more than that: whatever else
// there is must be what encodeTBS and encodeEvidence make of these two, which the caller holds it to.
func decodeEvidence(der []byte) (statement, signature []byte, err error) {
	malformed := func(what string) ([]byte, []byte, error) {
		return nil, nil, &Error{Reason: Malformed, Detail: what}
	}
	input := cryptobyte.String(der)
	var document, tbs, elements, blocks, block cryptobyte.String
	if !input.ReadASN1(&document, asn1.SEQUENCE) || !input.Empty() {
		return malformed("it is no DER sequence, or something follows it")
	}
	if !document.ReadASN1(&tbs, asn1.SEQUENCE) || !document.ReadASN1(&blocks, asn1.SEQUENCE) || !document.Empty() {
		return malformed("it is not what was signed, and signatures")
	}
	var version int64
	if !tbs.ReadASN1Integer(&version) || version != draftVersion || !tbs.ReadASN1(&elements, asn1.SEQUENCE) {
		return malformed("it is not version 1 of the draft's structure")
	}
	if !blocks.ReadASN1(&block, asn1.SEQUENCE) || !blocks.Empty() {
		return malformed("it has not exactly one signature")
	}
	if !block.SkipASN1(asn1.SEQUENCE) || !block.SkipASN1(asn1.SEQUENCE) || !block.ReadASN1Bytes(&signature, asn1.OCTET_STRING) {
		return malformed("its signature is not one")
	}
	if statement = findStatement(elements); statement == nil {
		return malformed("it holds no statement of Signet's")
	}
	return statement, signature, nil
}

// findStatement looks for our claim in the first element.
func findStatement(elements cryptobyte.String) []byte {
	var element, elementType, list cryptobyte.String
	if !elements.ReadASN1(&element, asn1.SEQUENCE) || !element.ReadASN1(&elementType, asn1.OBJECT_IDENTIFIER) ||
		!bytes.Equal(elementType, oidElementTransaction) || !element.ReadASN1(&list, asn1.SEQUENCE) {
		return nil
	}
	for !list.Empty() {
		var claim, claimType, value cryptobyte.String
		if !list.ReadASN1(&claim, asn1.SEQUENCE) || !claim.ReadASN1(&claimType, asn1.OBJECT_IDENTIFIER) {
			return nil
		}
		if bytes.Equal(claimType, oidStatement) && claim.ReadASN1(&value, asn1.OCTET_STRING) {
			return value
		}
	}
	return nil
}

func addOID(b *cryptobyte.Builder, oid []byte) {
	b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
}

func addText(b *cryptobyte.Builder, text string) {
	b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
}
