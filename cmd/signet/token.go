package main

import (
	"log/slog"

	"signet/keystore"
	"signet/softhsm"
)

// tokenConfig is the token to open: the operator's, else a SoftHSM2 token in the data folder, made there the first
// time with a random PIN.
func (c *Config) tokenConfig(log *slog.Logger) (keystore.Config, error) {
	if c.PKCS11Module == "" {
		config, err := softhsm.Ensure(c.DataDir)
		if err != nil {
			return keystore.Config{}, err
		}
		config.MaxSessions, config.Timeout = c.PKCS11MaxSessions, c.PKCS11Timeout
		return config, nil
	}
	pin, err := secretFrom(log, "pkcs11-pin-file", c.PKCS11PINFile, "SIGNET_PKCS11_PIN")
	if err != nil {
		return keystore.Config{}, err
	}
	if pin == "" {
		return keystore.Config{}, usagef("the PIN is missing: --pkcs11-pin-file or SIGNET_PKCS11_PIN")
	}
	return keystore.Config{
		Module: c.PKCS11Module, Token: c.PKCS11Token, PIN: pin, InitArgs: c.PKCS11InitArgs,
		MaxSessions: c.PKCS11MaxSessions, Timeout: c.PKCS11Timeout,
	}, nil
}
