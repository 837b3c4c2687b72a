package main

import (
	"runtime"
	"time"

	"signet/ca"
)

// recordAge is how long ago a caller's session and the record of a CA may have been read. What another replica changes is felt
// that much later, and what this one changes at once.
const recordAge = 500 * time.Millisecond

// authority is what the settings say of the certificate authority. Store, keys, clock and hooks are missing.
func (c *Config) authority() ca.Config {
	o := ca.OCSPConfig{
		Validity: c.OCSPValidity, ResponderValidity: c.OCSPResponderValidity, CacheEntries: c.OCSPCache, Signers: c.OCSPSigners,
		ClientBurst: c.OCSPRate.Attempts,
	}
	if o.Signers == 0 {
		o.Signers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if c.OCSPRate.Per > 0 {
		o.ClientRate = float64(c.OCSPRate.Attempts) / c.OCSPRate.Per.Seconds()
	}
	return ca.Config{
		Retention: c.retention(), Archive: c.archive(),
		RecordAge:   recordAge,
		CRLValidity: c.CRLValidity, CRLRefresh: c.CRLRefresh, CRLOverlap: c.CRLOverlap, CRLCoalesce: c.CRLCoalesce,
		KeysAhead: c.KeysAhead, LeaseTTL: c.LeaseTTL, OCSP: o, DrillInterval: c.KeyDrillInterval, Version: programVersion(),
		Notices: c.notices(),
	}
}
