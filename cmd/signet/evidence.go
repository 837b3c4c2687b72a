package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"signet/evidence"
)

// evidenceCommands are for auditors: they need no server, no database and no token.
type evidenceCommands struct {
	Verify evidenceVerifyCommand `cmd:"" help:"Check a key evidence document and say in words what it shows and what not. Exit code 0 only when it is valid and meets every option."`
}

type evidenceVerifyCommand struct {
	File           string         `arg:"" name:"file" help:"The document, in JSON or DER; - for standard input."`
	Nonce          *string        `name:"nonce" placeholder:"NONCE" help:"The nonce that was sent when the document was asked for."`
	AttestationKey *string        `name:"attestation-key" placeholder:"SHA256|FILE" help:"The only key that may have signed: the SHA-256 of its SubjectPublicKeyInfo in hexadecimal, or a PEM file with the public key or a certificate of it. Know it from elsewhere, not from the document."`
	CACertificate  *string        `name:"ca-certificate" placeholder:"FILE" help:"The CA certificate, in PEM or DER, whose key the document must be about."`
	MaxAge         *time.Duration `name:"max-age" placeholder:"DURATION" help:"How old the document may be, as in 24h."`
	Output         string         `name:"output" default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json."`
}

// Run checks the document.
func (c *evidenceVerifyCommand) Run(in *invocation) error {
	opts, err := c.options()
	if err != nil {
		return err
	}
	data, err := c.read(in)
	if err != nil {
		return err
	}
	opts.Now = time.Now()
	report, err := evidence.Verify(data, opts)
	if err != nil {
		return fmt.Errorf("verify evidence: %w", err)
	}
	if c.Output == "json" {
		encoder := json.NewEncoder(in.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	_, err = io.WriteString(in.stdout, report.Text())
	return err
}

// options refuses an option that was given and is empty, as an unset variable of a script leaves it: to check less than
// was asked for must not end in success.
func (c *evidenceVerifyCommand) options() (opts evidence.Options, err error) {
	if c.Nonce != nil {
		opts.Nonce = *c.Nonce
		if err := evidence.CheckNonce(opts.Nonce); err != nil {
			return opts, usagef("--nonce: %w", err)
		}
		if opts.Nonce == "" {
			return opts, usagef("--nonce is empty")
		}
	}
	if c.MaxAge != nil {
		if opts.MaxAge = *c.MaxAge; opts.MaxAge <= 0 {
			return opts, usagef("--max-age is not positive")
		}
	}
	if c.AttestationKey != nil {
		if opts.AttestationKey, err = attestationKey(*c.AttestationKey); err != nil {
			return opts, err
		}
	}
	if c.CACertificate != nil {
		opts.CACertificate, err = caCertificate(*c.CACertificate)
	}
	return opts, err
}

// caCertificate is the DER of the certificate that --ca-certificate means.
func caCertificate(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("--ca-certificate: %w", err)
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	certificate, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, usagef("--ca-certificate: %s holds no certificate: %w", path, err)
	}
	return certificate.Raw, nil
}

// attestationKey is the SHA-256 that --attestation-key means. Colons and capitals are as people copy them.
func attestationKey(value string) ([]byte, error) {
	if sum, err := hex.DecodeString(strings.ReplaceAll(value, ":", "")); err == nil && len(sum) == sha256.Size {
		return sum, nil
	}
	data, err := os.ReadFile(value)
	if err != nil {
		return nil, usagef("--attestation-key is neither the %d hexadecimal digits of a SHA-256 nor a file: %w", 2*sha256.Size, err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, usagef("--attestation-key: %s is not PEM", value)
	}
	publicKey := block.Bytes
	switch block.Type {
	case "PUBLIC KEY":
		_, err = x509.ParsePKIXPublicKey(publicKey)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(publicKey); err == nil {
			publicKey = certificate.RawSubjectPublicKeyInfo
		}
	default:
		return nil, usagef("--attestation-key: %s holds neither a public key nor a certificate", value)
	}
	if err != nil {
		return nil, usagef("--attestation-key: %s: %w", value, err)
	}
	sum := sha256.Sum256(publicKey)
	return sum[:], nil
}

// read reads the document, one octet more than may be in it at most.
func (c *evidenceVerifyCommand) read(in *invocation) ([]byte, error) {
	source := in.stdin
	if c.File != "-" {
		file, err := os.Open(c.File)
		if err != nil {
			return nil, fmt.Errorf("read evidence: %w", err)
		}
		defer file.Close()
		source = file
	}
	data, err := io.ReadAll(io.LimitReader(source, evidence.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	return data, nil
}
