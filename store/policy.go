package store

import (
	"context"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
)

// policyRow is a row of revocation_policies.
type policyRow struct {
	CAID            int64  `gorm:"column:ca_id;primaryKey;autoIncrement:false"`
	CRLValidity     *int64 `gorm:"column:crl_validity"`
	CRLRefresh      *int64 `gorm:"column:crl_refresh"`
	CRLOverlap      *int64 `gorm:"column:crl_overlap"`
	CRLShards       int    `gorm:"column:crl_shards"`
	CRLDelta        bool   `gorm:"column:crl_delta"`
	OCSPValidity    *int64 `gorm:"column:ocsp_validity"`
	OCSPResponderID string `gorm:"column:ocsp_responder_id"`
	OCSPPresign     bool   `gorm:"column:ocsp_presign"`
	OutageFrom      *instant
	OutageUntil     *instant
	Updated         instant `gorm:"column:updated_at"`
}

func (policyRow) TableName() string { return "revocation_policies" }

func (r policyRow) policy() ca.RevocationPolicy {
	return ca.RevocationPolicy{
		CRLValidity: duration(r.CRLValidity), CRLRefresh: duration(r.CRLRefresh), CRLOverlap: duration(r.CRLOverlap),
		Shards: r.CRLShards, Delta: r.CRLDelta,
		OCSPValidity: duration(r.OCSPValidity), ByName: r.OCSPResponderID == "name", Presign: r.OCSPPresign,
		Outage: ca.Outage{From: timeOf(r.OutageFrom), Until: timeOf(r.OutageUntil)}, UpdatedAt: r.Updated.Time,
	}
}

func (db *DB) policyRow(caID int64, p ca.RevocationPolicy) policyRow {
	row := policyRow{
		CAID: caID, CRLValidity: seconds(p.CRLValidity), CRLRefresh: seconds(p.CRLRefresh), CRLOverlap: seconds(p.CRLOverlap),
		CRLShards: p.Shards, CRLDelta: p.Delta,
		OCSPValidity: seconds(p.OCSPValidity), OCSPResponderID: "key", OCSPPresign: p.Presign, Updated: at(db.now()),
	}
	if p.ByName {
		row.OCSPResponderID = "name"
	}
	if p.Outage != (ca.Outage{}) {
		from, until := at(p.Outage.From), at(p.Outage.Until)
		row.OutageFrom, row.OutageUntil = &from, &until
	}
	return row
}

// duration is what a column of seconds says; zero when it is null.
func duration(s *int64) time.Duration {
	if s == nil {
		return 0
	}
	return time.Duration(*s) * time.Second
}

func seconds(d time.Duration) *int64 {
	if s := int64(d / time.Second); s != 0 {
		return &s
	}
	return nil
}

// RevocationPolicy implements ca.Store.
func (db *DB) RevocationPolicy(ctx context.Context, caID int64) (ca.RevocationPolicy, error) {
	var rows []policyRow
	err := db.read(ctx, "RevocationPolicy", func(q *gorm.DB) error { return q.Where("ca_id = ?", caID).Find(&rows).Error })
	if err != nil || len(rows) == 0 {
		return ca.RevocationPolicy{}, err
	}
	return rows[0].policy(), nil
}

// RevocationPolicies implements ca.Store.
func (db *DB) RevocationPolicies(ctx context.Context) (map[int64]ca.RevocationPolicy, error) {
	var rows []policyRow
	if err := db.read(ctx, "RevocationPolicies", func(q *gorm.DB) error { return q.Find(&rows).Error }); err != nil {
		return nil, err
	}
	all := make(map[int64]ca.RevocationPolicy, len(rows))
	for _, r := range rows {
		all[r.CAID] = r.policy()
	}
	return all, nil
}

// scopeRow is a row of crl_scopes.
type scopeRow struct {
	CAID     int64 `gorm:"column:ca_id;primaryKey;autoIncrement:false"`
	Shard    int   `gorm:"primaryKey;autoIncrement:false"`
	Sequence int64
}

func (scopeRow) TableName() string { return "crl_scopes" }

// SetRevocationPolicy implements ca.Store.
func (db *DB) SetRevocationPolicy(ctx context.Context, caID int64, p ca.RevocationPolicy, e audit.Event) error {
	return db.write(ctx, "SetRevocationPolicy", func(tx *gorm.DB) error {
		var found []authorityRow
		err := tx.Clauses(clause.Locking{Strength: "SHARE"}).Select("id").Where(visible).Where("id = ?", caID).Find(&found).Error
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return errNoCA
		}
		row := db.policyRow(caID, p)
		if err := tx.Clauses(clause.OnConflict{UpdateAll: true}).Create(&row).Error; err != nil {
			return err
		}
		var scopes []scopeRow
		for shard := 1; shard <= p.Shards; shard++ {
			scopes = append(scopes, scopeRow{CAID: caID, Shard: shard})
		}
		if len(scopes) > 0 {
			if err := tx.Clauses(clause.OnConflict{DoNothing: true}).CreateInBatches(scopes, 500).Error; err != nil {
				return err
			}
		}
		return db.append(tx, e, caID)
	})
}

// Lease implements ca.Store. On PostgreSQL its clock decides; replicas on SQLite share the clock of their machine.
func (db *DB) Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	const sql = `INSERT INTO leases (name, holder, expires_at) VALUES (@name, @holder, @ends)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
		WHERE leases.holder = excluded.holder OR leases.expires_at < @now`
	now := db.now()
	args := map[string]any{"name": name, "holder": holder, "now": at(now), "ends": at(now.Add(ttl))}
	if db.dialect == onPostgres {
		args["now"] = gorm.Expr("clock_timestamp()")
		args["ends"] = gorm.Expr("clock_timestamp() + ? * interval '1 microsecond'", ttl.Microseconds())
	}
	var mine bool
	err := db.write(ctx, "Lease", func(tx *gorm.DB) error {
		res := tx.Exec(sql, args)
		mine = res.RowsAffected == 1
		return res.Error
	})
	return mine, err
}

// EndLeases ends every lease: those of an earlier process, on a database that no other one uses now.
func (db *DB) EndLeases(ctx context.Context) error {
	return db.write(ctx, "EndLeases", func(tx *gorm.DB) error { return tx.Exec("DELETE FROM leases").Error })
}

// EndLease implements ca.Store.
func (db *DB) EndLease(ctx context.Context, name, holder string) error {
	return db.write(ctx, "EndLease", func(tx *gorm.DB) error {
		return tx.Exec("DELETE FROM leases WHERE name = ? AND holder = ?", name, holder).Error
	})
}
