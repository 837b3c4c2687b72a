package store_test

import (
	"context"
	"crypto"
	"crypto/md5"
	"fmt"
	"strconv"
	"testing"
	"time"

	"signet/ca"
	"signet/fault"
	"signet/store"
)

// BenchmarkStatus is what an OCSP answer costs the store when so many certificates are revoked, and what a look at 500 of them for those
// without answer does: when none has one, and when every one has.
func BenchmarkStatus(b *testing.B) {
	ctx := context.Background()
	for _, rows := range []int{10_000, 100_000, 1_000_000} {
		db := open(b, store.Config{URL: databases["PostgreSQL"](b)})
		issuer := revoked(b, db, rows)
		serial := func(i int) string { return fmt.Sprintf("%x", md5.Sum([]byte(strconv.Itoa(1+i%rows)))) }
		now := time.Now()
		run := func(name string, f func(i int) error) {
			b.Run(fmt.Sprintf("certificates=%d/%s", rows, name), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if err := f(i); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("serial status", func(i int) error {
			s, err := db.SerialStatus(ctx, issuer, serial(i*7919))
			if err == nil && s.Revoked == nil {
				return fmt.Errorf("serial %d is not revoked", i)
			}
			return err
		})
		run("no answer", func(i int) error {
			_, err := db.Answer(ctx, issuer, serial(i*7919), crypto.SHA256, now)
			if fault.Is(err, fault.NotFound) {
				return nil
			}
			return fmt.Errorf("an answer: %w", err)
		})
		run("keep answer", func(i int) error {
			return db.KeepAnswers(ctx, []ca.SignedAnswer{{CAID: issuer, Serial: serial(i * 7919), Hash: crypto.SHA256, ThisUpdate: now,
				NextUpdate: now.Add(time.Hour), Sequence: int64(rows), DER: make([]byte, 1100)}})
		})
		run("none answered", func(i int) error {
			all, last, err := db.Unanswered(ctx, issuer, crypto.SHA1, now, time.Hour, serial(i*7919), 500)
			if err == nil && last != "" && len(all) != 500 {
				return fmt.Errorf("%d are missing after %s", len(all), serial(i*7919))
			}
			return err
		})
		for _, sql := range []string{
			fmt.Sprintf(`INSERT INTO ocsp_answers (ca_id, serial, hash, this_update, next_update, sequence, der)
				SELECT %d, md5(i::text), 'sha1', now() - interval '1 hour', now() + interval '1 day', %d, decode(repeat('00', 1100), 'hex')
				FROM generate_series(1, %d) i`, issuer, rows, rows),
			"VACUUM ANALYZE ocsp_answers",
		} {
			if err := db.Exec(sql); err != nil {
				b.Fatal(err)
			}
		}
		run("answer", func(i int) error {
			_, err := db.Answer(ctx, issuer, serial(i*7919), crypto.SHA1, time.Now())
			return err
		})
		run("all answered", func(i int) error {
			all, _, err := db.Unanswered(ctx, issuer, crypto.SHA1, time.Now(), time.Hour, serial(i*7919), 500)
			if err == nil && len(all) > 0 {
				return fmt.Errorf("%d are missing", len(all))
			}
			return err
		})
	}
}
