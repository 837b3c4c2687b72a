-- +goose Up

-- token '' is the default token of the configuration. key_grade '' is a key that was never drilled.
ALTER TABLE certificate_authorities ADD COLUMN token TEXT NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN key_grade TEXT NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN key_locked TEXT NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN accepted_grade TEXT NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN accepted_by TEXT NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN accepted_at INTEGER;
ALTER TABLE certificate_authorities ADD COLUMN accepted_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN drill_claimed_at INTEGER;
ALTER TABLE certificate_authorities ADD COLUMN key_destroyed_at INTEGER;

-- A key whose adoption was never completed may be adopted again.
DROP INDEX certificate_authorities_key;
CREATE UNIQUE INDEX certificate_authorities_key ON certificate_authorities (public_key_sha256) WHERE state <> 'abandoned';
CREATE INDEX certificate_authorities_every_key ON certificate_authorities (public_key_sha256);

-- reasons and attacks are JSON.
CREATE TABLE key_drills (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ca_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    at INTEGER NOT NULL,
    token_serial TEXT NOT NULL,
    cause TEXT NOT NULL CHECK (cause IN ('create', 'startup', 'schedule', 'request', 'adopt')),
    grade TEXT NOT NULL,
    conclusive INTEGER NOT NULL,
    reasons TEXT NOT NULL,
    attacks TEXT NOT NULL
) STRICT;
CREATE INDEX key_drills_ca ON key_drills (ca_id, id);
