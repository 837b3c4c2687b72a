package keystore_test

import (
	"crypto"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// BenchmarkRecovery is how long after the end of an outage of half a second to a second the first signature is made, with somebody
// asking for one without pause. Run it with -benchtime 20x: it reports the median and the worst.
func BenchmarkRecovery(b *testing.B) {
	faulty := func(damage, mend func(*softhsmtest.Faults)) func(*testing.B) (keystore.Config, func(), func()) {
		return func(b *testing.B) (keystore.Config, func(), func()) {
			cfg, faults := softhsmtest.Faulty(b)
			return cfg, func() { damage(faults) }, func() { mend(faults) }
		}
	}
	for _, c := range []struct {
		name  string
		setUp func(*testing.B) (cfg keystore.Config, damage, mend func())
	}{
		{"token-removed", faulty((*softhsmtest.Faults).Remove, (*softhsmtest.Faults).Restore)},
		{"needs-C_Initialize", faulty((*softhsmtest.Faults).Disconnect, (*softhsmtest.Faults).Reconnect)},
		{"p11-kit-killed", func(b *testing.B) (keystore.Config, func(), func()) {
			cfg, server := softhsmtest.Remote(b)
			return cfg, server.Kill, server.Restart
		}},
		{"p11-kit-frozen", func(b *testing.B) (keystore.Config, func(), func()) {
			cfg, server := softhsmtest.Remote(b)
			cfg.Timeout = 200 * time.Millisecond // the hang is noticed
			return cfg, server.Freeze, server.Thaw
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg, damage, mend := c.setUp(b)
			cfg.Patience = 10 * time.Millisecond // callers are told at once, and ask again
			token := openAs(b, cfg)
			key, _ := generate(b, token, keystore.EC, 256)
			if err := token.Check(b.Context()); err != nil {
				b.Fatal(err)
			}
			var took []time.Duration
			for b.Loop() {
				took = append(took, recovery(b, key, damage, mend))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "worst-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func recovery(b *testing.B, key crypto.Signer, damage, mend func()) time.Duration {
	b.Helper()
	damage()
	outage := 500*time.Millisecond + rand.N(500*time.Millisecond) // not in step with the recovery
	for start := time.Now(); time.Since(start) < outage; time.Sleep(time.Millisecond) {
		_ = signDigest(key) // refused, or answered late
	}
	if signDigest(key) == nil {
		b.Fatal("the token signs while it is away")
	}
	mend()
	start := time.Now()
	for signDigest(key) != nil {
		if time.Since(start) > 20*time.Second {
			b.Fatal("the token does not come back")
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}
