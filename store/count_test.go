package store_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/store"
)

func TestCertificatesAreCountedAsTheyChange(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		issuers := []int64{validCA(t, db), validCA(t, db)}
		who := []*int64{nil, new(int64), new(int64)}
		*who[1], *who[2] = 5, 6
		complete, revoke := audit.Event{Action: audit.CertCreate}, audit.Event{Action: audit.CertRevoke}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				for range 12 {
					c := draft(issuers[random.IntN(2)])
					c.OrganizationID, c.CreatedBy = who[random.IntN(3)], who[random.IntN(3)]
					id, err := db.Reserve(ctx, c, reserved)
					if err == nil && random.IntN(4) > 0 {
						_, err = db.Complete(ctx, id, []byte("certificate"), nil, complete)
						if err == nil && random.IntN(2) == 0 {
							_, err = db.Revoke(ctx, id, ca.Revocation{At: time.Now(), Reason: 6}, nil, revoke)
							if err == nil && random.IntN(2) == 0 {
								_, err = db.Release(ctx, id, time.Now(), revoke)
							} else if err == nil {
								_, err = db.Revoke(ctx, id, ca.Revocation{At: time.Now(), Reason: 1}, []int{6}, revoke)
							}
						}
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		db.CheckCounts(t)
		if _, err := db.Abandon(ctx, time.Now().Add(time.Hour), time.Now()); err != nil {
			t.Fatal(err)
		}
		db.CheckCounts(t)
	})
}
