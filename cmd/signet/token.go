package main

import (
	"log/slog"
	"path/filepath"

	"signet/keystore"
	"signet/keystore/worker"
	"signet/softhsm"
)

// tokenConfig is the token to open: the operator's, else a SoftHSM2 token in the data folder, made there the first
// time, with the operator's label and PIN or with the usual label and a random PIN.
func (c *Config) tokenConfig(log *slog.Logger) (keystore.Config, error) {
	pin, err := secretFrom(log, "pkcs11-pin-file", c.PKCS11PINFile, "SIGNET_PKCS11_PIN")
	if err != nil {
		return keystore.Config{}, err
	}
	config := keystore.Config{Module: c.PKCS11Module, Token: c.PKCS11Token, PIN: pin, InitArgs: c.PKCS11InitArgs}
	switch {
	case c.PKCS11Module != "" && pin == "":
		return keystore.Config{}, usagef("the PIN is missing: --pkcs11-pin-file or SIGNET_PKCS11_PIN")
	case c.PKCS11Module == "" && pin != "" && (len(pin) < 4 || len(pin) > 255): // SoftHSM2's CK_TOKEN_INFO
		return keystore.Config{}, usagef("the PIN has %d characters: SoftHSM2 wants 4 to 255", len(pin))
	case c.PKCS11Module == "":
		if config, err = softhsm.Ensure(c.DataDir, c.PKCS11Token, pin); err != nil {
			return keystore.Config{}, err
		}
	}
	config.MaxSessions, config.Timeout, config.Patience = c.PKCS11MaxSessions, c.PKCS11Timeout, c.PKCS11Patience
	switch {
	case c.PKCS11PINFile != "":
		config.PINSource = pinFrom(c.PKCS11PINFile)
	case pin == "":
		config.PINSource = pinFrom(softhsm.PINFile(c.DataDir))
	}
	return config, nil
}

// workerCommand is the name of the command below.
const workerCommand = "token-worker"

// tokenWorkerCommand is the other end of --pkcs11-worker.
type tokenWorkerCommand struct{}

// Run serves the token to the process that started this one.
func (tokenWorkerCommand) Run(in *invocation) error { return worker.Main(in.ctx) }

// syncToken makes what the token holds survive a power failure, which is SoftHSM2's only weakness of this kind: other
// modules look after themselves, so that there is nothing to do.
func (c *Config) syncToken() error {
	if c.PKCS11Module != "" {
		return nil
	}
	return softhsm.Sync(filepath.Join(c.DataDir, "softhsm"))
}
