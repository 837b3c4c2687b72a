package policy_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"signet/policy"
)

func BenchmarkResolveNames(b *testing.B) {
	request := policy.NameRequest{Type: policy.Server, CommonName: "api.example.com", DNS: []string{"api.example.com", "*.bücher.example"}, IPs: []string{"10.0.0.42"}}
	for b.Loop() {
		if _, err := policy.ResolveNames(request); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseDN(b *testing.B) {
	for b.Loop() {
		mustParse(b, "CN=api.example.com,O=Acme Corp,C=US")
	}
}

func BenchmarkDNFromDER(b *testing.B) {
	der, err := mustParse(b, "CN=api.example.com,O=Acme Corp,C=US").DER()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := policy.DNFromDER(der); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckPublicKey(b *testing.B) {
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	keys := map[string]any{
		"rsa-2048": &rsa.PublicKey{N: modulus(2048), E: 65537},
		"rsa-4096": &rsa.PublicKey{N: modulus(4096), E: 65537},
		"p256":     newEC(b, elliptic.P256()),
		"ed25519":  ed,
	}
	for name, key := range keys {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := policy.CheckPublicKey(key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
