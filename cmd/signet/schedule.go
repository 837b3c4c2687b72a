package main

import (
	"time"

	"signet/softhsm"
)

// drillInterval is how often the server attacks the key of each CA.
const drillInterval = 24 * time.Hour

// tokenName is the name of the token in the API: its label, or that of the token made in the data folder.
func (c *Config) tokenName() string {
	if c.PKCS11Token == "" {
		return softhsm.Label
	}
	return c.PKCS11Token
}
