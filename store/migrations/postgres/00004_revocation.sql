-- +goose Up

-- What a CA numbers: sequence counts revocations, holds, releases and changed reasons; crl_number is that of the last list
-- that was completed. Apart from certificate_authorities, whose rows every issuance locks.
CREATE TABLE revocation_state (
    ca_id      bigint PRIMARY KEY REFERENCES certificate_authorities,
    sequence   bigint NOT NULL DEFAULT 0,
    crl_number bigint NOT NULL DEFAULT 0
);
INSERT INTO revocation_state (ca_id, sequence, crl_number)
SELECT id, revocation_sequence, crl_number FROM certificate_authorities;
ALTER TABLE certificate_authorities DROP COLUMN revocation_sequence, DROP COLUMN crl_number;

-- The lists that a CA must keep up, and the sequence of the last change among the certificates that name each. Shard 0 is the
-- list of everything, which certificates outside shards name.
CREATE TABLE crl_scopes (
    ca_id    bigint  NOT NULL REFERENCES certificate_authorities,
    shard    integer NOT NULL,
    sequence bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (ca_id, shard)
);
INSERT INTO crl_scopes (ca_id, shard, sequence) SELECT ca_id, 0, sequence FROM revocation_state;

-- Every serial number that is revoked, narrow, so that a list is built without reading certificates: those of leaves, CAs,
-- responders and abandoned reservations. A released hold stays as long as a delta must say so.
CREATE TABLE revocations (
    ca_id           bigint      NOT NULL REFERENCES certificate_authorities,
    serial          text COLLATE "C" NOT NULL,
    shard           integer     NOT NULL DEFAULT 0,
    sequence        bigint      NOT NULL,
    revoked_at      timestamptz NOT NULL,
    reason          integer     NOT NULL,
    invalidity_date timestamptz,
    not_after       timestamptz NOT NULL,
    released        boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (ca_id, serial)
);
CREATE INDEX revocations_scope ON revocations (ca_id, shard, sequence);
CREATE INDEX revocations_sequence ON revocations (ca_id, sequence);
INSERT INTO revocations (ca_id, serial, sequence, revoked_at, reason, not_after)
SELECT issuer_id, serial, 0, revoked_at, revocation_reason, not_after FROM certificates WHERE revoked_at IS NOT NULL
UNION ALL
SELECT parent_id, serial, 0, revoked_at, revocation_reason, not_after FROM certificate_authorities
WHERE revoked_at IS NOT NULL AND parent_id IS NOT NULL AND serial IS NOT NULL;

-- names: common name and subject alternative names in lower case, a line each, for searching.
ALTER TABLE certificates
    ADD COLUMN crl_shard       integer NOT NULL DEFAULT 0,
    ADD COLUMN invalidity_date timestamptz,
    ADD COLUMN names           text    NOT NULL DEFAULT '';
ALTER TABLE certificate_authorities ADD COLUMN invalidity_date timestamptz;
DROP INDEX certificates_revoked;
-- With the state, what ends soon is counted without reading certificates.
DROP INDEX certificates_expiry;
CREATE INDEX certificates_expiry ON certificates (issuer_id, not_after) INCLUDE (state);
DROP INDEX certificate_authorities_revoked;

-- A list is pending from the moment its number is taken until it is signed, and stays withdrawn when a newer one took its
-- place before its time. A delta has the number of the complete list that came with it, or one of its own. What is kept has its
-- DER in crl_chunks: all that may be served, so the index stays small.
CREATE TABLE crls_new (
    ca_id       bigint      NOT NULL REFERENCES certificate_authorities,
    number      bigint      NOT NULL,
    delta       boolean     NOT NULL DEFAULT false,
    shard       integer     NOT NULL DEFAULT 0,
    base_number bigint,
    state       text        NOT NULL CHECK (state IN ('pending', 'published', 'withdrawn')),
    attempts    integer     NOT NULL DEFAULT 1,
    this_update timestamptz NOT NULL,
    next_update timestamptz NOT NULL,
    sequence    bigint      NOT NULL,
    entries     integer     NOT NULL DEFAULT 0,
    size        bigint      NOT NULL DEFAULT 0 CHECK (size >= 0), -- octets
    sha256      bytea,
    kept        boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (ca_id, number, delta)
);
INSERT INTO crls_new (ca_id, number, state, this_update, next_update, sequence, entries, size, sha256, kept)
SELECT ca_id, number, 'published', this_update, next_update, sequence, entries, length(der), sha256(der), true FROM crls;

-- The DER of lists, cut so that nobody needs a long one in memory twice: a MiB each, the last one less.
CREATE TABLE crl_chunks (
    ca_id  bigint  NOT NULL,
    number bigint  NOT NULL,
    delta  boolean NOT NULL,
    part   integer NOT NULL CHECK (part >= 0),
    data   bytea   NOT NULL,
    PRIMARY KEY (ca_id, number, delta, part),
    FOREIGN KEY (ca_id, number, delta) REFERENCES crls_new
);
ALTER TABLE crl_chunks ALTER COLUMN data SET STORAGE EXTERNAL; -- what it is made of hardly compresses
INSERT INTO crl_chunks (ca_id, number, delta, part, data)
SELECT ca_id, number, false, part, substring(der FROM part * 1048576 + 1 FOR 1048576)
FROM crls, generate_series(0, (length(der) - 1) / 1048576) AS part;

DROP TABLE crls;
ALTER TABLE crls_new RENAME TO crls;
ALTER TABLE crls RENAME CONSTRAINT crls_new_pkey TO crls_pkey;
CREATE INDEX crls_scope ON crls (ca_id, shard, delta, this_update, number) WHERE kept;

-- What is NULL follows the settings of the server. Intervals are in seconds.
CREATE TABLE revocation_policies (
    ca_id             bigint PRIMARY KEY REFERENCES certificate_authorities,
    crl_validity      bigint,
    crl_refresh       bigint,
    crl_overlap       bigint,
    crl_shards        integer NOT NULL DEFAULT 0,
    crl_delta         boolean NOT NULL DEFAULT false,
    ocsp_validity     bigint,
    ocsp_responder_id text    NOT NULL DEFAULT 'key' CHECK (ocsp_responder_id IN ('key', 'name')),
    ocsp_presign      boolean NOT NULL DEFAULT false,
    outage_from       timestamptz,
    outage_until      timestamptz,
    updated_at        timestamptz NOT NULL
);

-- Work that one replica does for all of them.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text        NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Delegated OCSP responders (RFC 6960, section 4.2.2.2). The key is in the token; its certificate is renewed under it.
CREATE TABLE ocsp_responders (
    id          bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    ca_id       bigint      NOT NULL REFERENCES certificate_authorities,
    token       text        NOT NULL,
    key_id      bytea       NOT NULL,
    public_key  bytea       NOT NULL,
    serial      text COLLATE "C" NOT NULL,
    tbs         bytea,
    certificate bytea,
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL,
    state       text        NOT NULL CHECK (state IN ('pending', 'valid', 'abandoned')),
    created_at  timestamptz NOT NULL
);
CREATE UNIQUE INDEX ocsp_responders_serial ON ocsp_responders (ca_id, serial);
CREATE INDEX ocsp_responders_latest ON ocsp_responders (ca_id, id);

-- Signed answers without nonce; several for the same serial number when they were signed ahead. sequence is that of the CA
-- when the status was read: an answer older than a revocation of its serial number is not given.
CREATE TABLE ocsp_answers (
    ca_id       bigint      NOT NULL REFERENCES certificate_authorities,
    serial      text COLLATE "C" NOT NULL,
    hash        text        NOT NULL, -- of the certID: sha1 or sha256
    this_update timestamptz NOT NULL,
    next_update timestamptz NOT NULL,
    sequence    bigint      NOT NULL,
    der         bytea       NOT NULL,
    PRIMARY KEY (ca_id, serial, hash, this_update)
);
CREATE INDEX ocsp_answers_end ON ocsp_answers (next_update);

-- What was or will be told to the webhook. key names the occasion, so that each is told once.
CREATE TABLE notifications (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    key             text        NOT NULL,
    kind            text        NOT NULL,
    payload         text        NOT NULL,
    created_at      timestamptz NOT NULL,
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    delivered_at    timestamptz,
    given_up_at     timestamptz,
    last_error      text        NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX notifications_key ON notifications (key);
CREATE INDEX notifications_due ON notifications (next_attempt_at) WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX notifications_created ON notifications (created_at);

-- How far the searches for occasions came: everything that ends until then was found.
CREATE TABLE notification_searches (
    name  text PRIMARY KEY,
    until timestamptz NOT NULL
);
