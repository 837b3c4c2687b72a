package main

import (
	"context"
	"crypto"
	"errors"

	"signet/ca"
	"signet/evidence"
)

// Inspect implements [ca.Keys].
func (k *tokenKeys) Inspect(context.Context, ca.KeyRef) (evidence.Key, error) {
	return evidence.Key{}, errors.New("package keystore has no Token.Inspect")
}

// Drill implements [ca.Keys].
func (k *tokenKeys) Drill(context.Context, ca.KeyRef) (evidence.Drill, error) {
	return evidence.Drill{}, errors.New("package keystore has no Token.Drill")
}

// Attester implements [ca.Keys].
func (k *tokenKeys) Attester(context.Context, string) (crypto.Signer, evidence.Key, error) {
	return nil, evidence.Key{}, errors.New("package keystore has no Token.Attester")
}
