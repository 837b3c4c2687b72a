package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/store"
)

func TestWhoCreatedSomethingOutsideAnOrganization(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		own, other := int64(1), int64(2)
		want := map[int64]bool{}
		creator := func(outside bool) *int64 {
			id := int64(len(want)) + 100
			want[id] = outside
			return &id
		}
		pending := func(organization, creator *int64) int64 {
			c, err := db.CreateCA(ctx, ca.CA{Name: "Example", KeyID: []byte("key"), OrganizationID: organization, CreatedBy: creator}, audit.Event{Action: audit.CAReserve})
			if err != nil {
				t.Fatal(err)
			}
			return c.ID
		}
		certificate := func(organization, creator *int64) int64 {
			d := draft(validCA(t, db))
			d.OrganizationID, d.CreatedBy = organization, creator
			id, err := db.Reserve(ctx, d, reserved)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		creator(false) // of nothing
		pending(&own, creator(false))
		certificate(&own, creator(false))
		pending(&other, creator(true))
		pending(nil, creator(true))
		certificate(&other, creator(true))
		certificate(nil, creator(true))
		pending(&other, nil)
		certificate(nil, nil)

		mixed := creator(true)
		pending(&own, mixed)
		certificate(&own, mixed)
		certificate(&other, mixed)

		completed, err := db.Complete(ctx, certificate(&other, creator(true)), []byte("certificate"), nil, audit.Event{Action: audit.CertCreate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Revoke(ctx, completed.ID, ca.Revocation{At: time.Now()}, nil, audit.Event{Action: audit.CertRevoke}); err != nil {
			t.Fatal(err)
		}
		if err := db.Exec(fmt.Sprintf("UPDATE certificate_authorities SET deleted_at = created_at WHERE id = %d", pending(&other, creator(true)))); err != nil {
			t.Fatal(err)
		}
		for id, want := range want {
			if got, err := db.CreatedOutside(ctx, id, own); err != nil || got != want {
				t.Errorf("user %d: got %t, want %t, %v", id, got, want, err)
			}
		}
		if outside, err := db.CreatedOutside(ctx, *mixed, 3); err != nil || !outside {
			t.Errorf("of a third organization: %t, %v", outside, err)
		}
	})
}
