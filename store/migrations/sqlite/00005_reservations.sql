-- +goose Up

-- The certificates that may have been signed and were not completed. A row lives for milliseconds, then it moves to
-- certificates, whose ids come from here: AUTOINCREMENT gives none twice. The state of certificates is 'pending' no more,
-- although its constraint, which cannot be changed in place, would let it.
CREATE TABLE reservations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer_id INTEGER NOT NULL,
    common_name TEXT NOT NULL,
    subject_dn TEXT NOT NULL,
    type TEXT NOT NULL,
    key_type TEXT NOT NULL,
    key_size INTEGER NOT NULL,
    valid_days INTEGER NOT NULL,
    organization_id INTEGER,
    created_by INTEGER,
    serial TEXT NOT NULL,
    names TEXT NOT NULL,
    crl_shard INTEGER NOT NULL,
    tbs BLOB NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX reservations_serial ON reservations (issuer_id, serial);
INSERT INTO sqlite_sequence (name, seq) SELECT 'reservations', seq FROM sqlite_sequence WHERE name = 'certificates';

INSERT INTO reservations (id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
    serial, names, crl_shard, tbs, not_before, not_after, created_at)
SELECT id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
    serial, names, crl_shard, coalesce(tbs, x''), not_before, not_after, created_at
FROM certificates WHERE state = 'pending';
DELETE FROM certificates WHERE state = 'pending';
DROP INDEX certificates_pending;

-- How many certificates there are: the sum of n over the rows of interest. 0 is nobody and no organization. Stripes are for
-- PostgreSQL; here there is one.
CREATE TABLE certificate_counts (
    issuer_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    organization_id INTEGER NOT NULL,
    created_by INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('valid', 'revoked', 'abandoned')),
    stripe INTEGER NOT NULL CHECK (stripe >= 0),
    n INTEGER NOT NULL,
    PRIMARY KEY (issuer_id, organization_id, created_by, state, stripe)
) STRICT, WITHOUT ROWID;
INSERT INTO certificate_counts (issuer_id, organization_id, created_by, state, stripe, n)
SELECT issuer_id, coalesce(organization_id, 0), coalesce(created_by, 0), state, 0, count(*) FROM certificates GROUP BY 1, 2, 3, 4;
