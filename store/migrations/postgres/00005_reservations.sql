-- +goose Up

-- First: nobody adds a certificate from here to the end.
ALTER TABLE certificates DROP CONSTRAINT certificates_state_check;

-- The certificates that may have been signed and were not completed. A row lives for milliseconds, then it moves to
-- certificates, under the id that it has from the sequence of that table. The issuer is locked when its row is written,
-- so that it needs no foreign key. There is no index for the oldest: to look through the table once a minute costs less
-- than to keep one.
CREATE TABLE reservations (
    id              bigint PRIMARY KEY,
    issuer_id       bigint      NOT NULL,
    common_name     text        NOT NULL,
    subject_dn      text        NOT NULL,
    type            text        NOT NULL,
    key_type        text        NOT NULL,
    key_size        integer     NOT NULL,
    valid_days      integer     NOT NULL,
    organization_id bigint,
    created_by      bigint,
    serial          text COLLATE "C" NOT NULL,
    names           text        NOT NULL,
    crl_shard       integer     NOT NULL,
    tbs             bytea       NOT NULL,
    not_before      timestamptz NOT NULL,
    not_after       timestamptz NOT NULL,
    created_at      timestamptz NOT NULL
) WITH (
    toast_tuple_target = 8160, -- what is gone at once is not worth compressing or moving
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    vacuum_truncate = false -- the next certificates need the room again, and to give it back would stop them
);
CREATE UNIQUE INDEX reservations_serial ON reservations (issuer_id, serial);

-- Whoever has just reserved serial numbers calls this in the same statement. Its query sees what was committed since that
-- statement began: also a certificate that left reservations meanwhile. It asks for the serial number as a range in
-- its order, which without sorting takes an index that has it: when the statistics are those of an empty table, other indexes by
-- issuer seem as good for what is equal.
-- +goose StatementBegin
CREATE FUNCTION refuse_taken_serials(issuers bigint[], serials text[]) RETURNS boolean LANGUAGE plpgsql VOLATILE
    SET enable_seqscan = off SET enable_sort = off SET enable_incremental_sort = off AS $$
BEGIN
    PERFORM 1 FROM unnest(issuers, serials) AS i (issuer, serial)
    WHERE (SELECT true FROM certificates t
            WHERE t.issuer_id = i.issuer AND t.serial >= i.serial AND t.serial <= i.serial ORDER BY t.serial LIMIT 1)
        OR (SELECT true FROM certificate_authorities t
            WHERE t.parent_id = i.issuer AND t.serial >= i.serial AND t.serial <= i.serial ORDER BY t.serial LIMIT 1)
        OR (SELECT true FROM ocsp_responders t
            WHERE t.ca_id = i.issuer AND t.serial >= i.serial AND t.serial <= i.serial ORDER BY t.serial LIMIT 1);
    IF FOUND THEN
        RAISE unique_violation USING MESSAGE = 'serial number is in use', TABLE = 'reservations', CONSTRAINT = 'reservations_serial';
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

INSERT INTO reservations (id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
    serial, names, crl_shard, tbs, not_before, not_after, created_at)
SELECT id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
    serial, names, crl_shard, coalesce(tbs, ''), not_before, not_after, created_at
FROM certificates WHERE state = 'pending';
DELETE FROM certificates WHERE state = 'pending';
DROP INDEX certificates_pending;
ALTER TABLE certificates ADD CONSTRAINT certificates_state_check CHECK (state IN ('valid', 'revoked', 'abandoned'));
ALTER TABLE certificates SET (toast_tuple_target = 8160); -- a certificate is read whole, and hardly compresses

-- How many certificates there are: the sum of n over the rows of interest. 0 is nobody and no organization. Stripes keep
-- those who count at the same time from waiting for each other; n of one stripe may be negative, the sum never is.
CREATE TABLE certificate_counts (
    issuer_id       bigint   NOT NULL REFERENCES certificate_authorities,
    organization_id bigint   NOT NULL,
    created_by      bigint   NOT NULL,
    state           text     NOT NULL CHECK (state IN ('valid', 'revoked', 'abandoned')),
    stripe          smallint NOT NULL CHECK (stripe >= 0),
    n               bigint   NOT NULL,
    PRIMARY KEY (issuer_id, organization_id, created_by, state, stripe)
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO certificate_counts (issuer_id, organization_id, created_by, state, stripe, n)
SELECT issuer_id, coalesce(organization_id, 0), coalesce(created_by, 0), state, 0, count(*) FROM certificates GROUP BY 1, 2, 3, 4;
