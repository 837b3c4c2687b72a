-- +goose Up

-- What a CA numbers: sequence counts revocations, holds, releases and changed reasons; crl_number is that of the last list
-- that was completed. Apart from certificate_authorities, whose rows every issuance locks.
CREATE TABLE revocation_state (
    ca_id INTEGER PRIMARY KEY REFERENCES certificate_authorities (id),
    sequence INTEGER NOT NULL DEFAULT 0,
    crl_number INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO revocation_state (ca_id, sequence, crl_number)
SELECT id, revocation_sequence, crl_number FROM certificate_authorities;
ALTER TABLE certificate_authorities DROP COLUMN revocation_sequence;
ALTER TABLE certificate_authorities DROP COLUMN crl_number;

-- The lists that a CA must keep up, and the sequence of the last change among the certificates that name each. Shard 0 is the
-- list of everything, which certificates outside shards name.
CREATE TABLE crl_scopes (
    ca_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    shard INTEGER NOT NULL,
    sequence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (ca_id, shard)
) STRICT;
INSERT INTO crl_scopes (ca_id, shard, sequence) SELECT ca_id, 0, sequence FROM revocation_state;

-- Every serial number that is revoked, narrow, so that a list is built without reading certificates: those of leaves, CAs,
-- responders and abandoned reservations. A released hold stays as long as a delta must say so.
CREATE TABLE revocations (
    ca_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    serial TEXT NOT NULL,
    shard INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL,
    revoked_at INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    invalidity_date INTEGER,
    not_after INTEGER NOT NULL,
    released INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (ca_id, serial)
) STRICT;
CREATE INDEX revocations_scope ON revocations (ca_id, shard, sequence);
CREATE INDEX revocations_sequence ON revocations (ca_id, sequence);
INSERT INTO revocations (ca_id, serial, sequence, revoked_at, reason, not_after)
SELECT issuer_id, serial, 0, revoked_at, revocation_reason, not_after FROM certificates WHERE revoked_at IS NOT NULL
UNION ALL
SELECT parent_id, serial, 0, revoked_at, revocation_reason, not_after FROM certificate_authorities
WHERE revoked_at IS NOT NULL AND parent_id IS NOT NULL AND serial IS NOT NULL;

-- names: common name and subject alternative names in lower case, a line each, for searching.
ALTER TABLE certificates ADD COLUMN crl_shard INTEGER NOT NULL DEFAULT 0;
ALTER TABLE certificates ADD COLUMN invalidity_date INTEGER;
ALTER TABLE certificates ADD COLUMN names TEXT NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN invalidity_date INTEGER;
DROP INDEX certificates_revoked;
DROP INDEX certificate_authorities_revoked;

-- A list is pending from the moment its number is taken until it is signed, and stays withdrawn when a newer one took its
-- place before its time. A delta has the number of the complete list that came with it, or one of its own. What is kept has its
-- DER in crl_chunks: all that may be served, so the index stays small.
CREATE TABLE crls_new (
    ca_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    number INTEGER NOT NULL,
    delta INTEGER NOT NULL DEFAULT 0,
    shard INTEGER NOT NULL DEFAULT 0,
    base_number INTEGER,
    state TEXT NOT NULL CHECK (state IN ('pending', 'published', 'withdrawn')),
    attempts INTEGER NOT NULL DEFAULT 1,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    entries INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0 CHECK (size >= 0), -- octets
    sha256 BLOB,
    kept INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (ca_id, number, delta)
) STRICT;
INSERT INTO crls_new (ca_id, number, state, this_update, next_update, sequence, entries, size, sha256, kept)
SELECT ca_id, number, 'published', this_update, next_update, sequence, entries, length(der), NULL, 1 FROM crls;

-- The DER of lists, cut so that nobody needs a long one in memory twice: a MiB each, the last one less.
CREATE TABLE crl_chunks (
    ca_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    delta INTEGER NOT NULL,
    part INTEGER NOT NULL CHECK (part >= 0),
    data BLOB NOT NULL,
    PRIMARY KEY (ca_id, number, delta, part),
    FOREIGN KEY (ca_id, number, delta) REFERENCES crls_new (ca_id, number, delta)
) STRICT;
WITH RECURSIVE parts (part) AS (
    SELECT 0
    UNION ALL
    SELECT part + 1 FROM parts WHERE (part + 1) * 1048576 < (SELECT max(length(der)) FROM crls)
)
INSERT INTO crl_chunks (ca_id, number, delta, part, data)
SELECT ca_id, number, 0, part, substr(der, part * 1048576 + 1, 1048576)
FROM crls JOIN parts ON part = 0 OR part * 1048576 < length(der);

DROP TABLE crls;
ALTER TABLE crls_new RENAME TO crls;
CREATE INDEX crls_scope ON crls (ca_id, shard, delta, this_update, number) WHERE kept;

-- What is NULL follows the settings of the server. Intervals are in seconds.
CREATE TABLE revocation_policies (
    ca_id INTEGER PRIMARY KEY REFERENCES certificate_authorities (id),
    crl_validity INTEGER,
    crl_refresh INTEGER,
    crl_overlap INTEGER,
    crl_shards INTEGER NOT NULL DEFAULT 0,
    crl_delta INTEGER NOT NULL DEFAULT 0,
    ocsp_validity INTEGER,
    ocsp_responder_id TEXT NOT NULL DEFAULT 'key' CHECK (ocsp_responder_id IN ('key', 'name')),
    ocsp_presign INTEGER NOT NULL DEFAULT 0,
    outage_from INTEGER,
    outage_until INTEGER,
    updated_at INTEGER NOT NULL
) STRICT;

-- Work that one replica does for all of them.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Delegated OCSP responders (RFC 6960, section 4.2.2.2). The key is in the token; its certificate is renewed under it.
CREATE TABLE ocsp_responders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ca_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    token TEXT NOT NULL,
    key_id BLOB NOT NULL,
    public_key BLOB NOT NULL,
    serial TEXT NOT NULL,
    tbs BLOB,
    certificate BLOB,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'valid', 'abandoned')),
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX ocsp_responders_serial ON ocsp_responders (ca_id, serial);
CREATE INDEX ocsp_responders_latest ON ocsp_responders (ca_id, id);

-- Signed answers without nonce; several for the same serial number when they were signed ahead. sequence is that of the CA
-- when the status was read: an answer older than a revocation of its serial number is not given.
CREATE TABLE ocsp_answers (
    ca_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    serial TEXT NOT NULL,
    hash TEXT NOT NULL, -- of the certID: sha1 or sha256
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    der BLOB NOT NULL,
    PRIMARY KEY (ca_id, serial, hash, this_update)
) STRICT;
CREATE INDEX ocsp_answers_end ON ocsp_answers (next_update);

-- What was or will be told to the webhook. key names the occasion, so that each is told once.
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    delivered_at INTEGER,
    given_up_at INTEGER,
    last_error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX notifications_key ON notifications (key);
CREATE INDEX notifications_due ON notifications (next_attempt_at) WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX notifications_created ON notifications (created_at);

-- How far the searches for occasions came: everything that ends until then was found.
CREATE TABLE notification_searches (
    name TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT;
