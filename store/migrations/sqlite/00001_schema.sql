-- +goose Up
-- Times are microseconds since 1970 UTC, truth is 1.

CREATE TABLE organizations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX organizations_name ON organizations (name);

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL, -- the address in lower case
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    active INTEGER NOT NULL,
    create_ca INTEGER NOT NULL,
    create_cert INTEGER NOT NULL,
    revoke_cert INTEGER NOT NULL,
    export_private_key INTEGER NOT NULL,
    delete_ca INTEGER NOT NULL,
    organization_id INTEGER REFERENCES organizations (id),
    token_epoch INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX users_username ON users (username);
CREATE UNIQUE INDEX users_email_key ON users (email_key);
CREATE INDEX users_organization ON users (organization_id, id);

-- The row exists since the first user: of parallel first users exactly one inserts it.
CREATE TABLE bootstrap (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE bootstrap_token (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE refresh_tokens (
    hash BLOB PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    spent_at INTEGER -- used or revoked
) STRICT;
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);

CREATE TABLE revoked_tokens (
    jti TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX revoked_tokens_expires ON revoked_tokens (expires_at);

-- organization_id and created_by have no foreign key: what was made outlives who made it.
CREATE TABLE certificate_authorities (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT,
    subject_dn TEXT NOT NULL,
    key_type TEXT NOT NULL,
    key_size INTEGER NOT NULL,
    valid_days INTEGER NOT NULL,
    parent_id INTEGER REFERENCES certificate_authorities (id),
    path_length INTEGER,
    allow_leaf_certs INTEGER NOT NULL,
    crl_base_url TEXT,
    organization_id INTEGER,
    created_by INTEGER,
    key_id BLOB NOT NULL,
    public_key BLOB,
    public_key_sha256 BLOB,
    serial TEXT,
    tbs BLOB,
    certificate BLOB,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'valid', 'revoked', 'abandoned')),
    revoked_at INTEGER,
    revocation_reason INTEGER NOT NULL DEFAULT 0,
    revocation_text TEXT NOT NULL DEFAULT '',
    revocation_sequence INTEGER NOT NULL DEFAULT 0,
    crl_number INTEGER NOT NULL DEFAULT 0,
    deleted_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((state IN ('valid', 'revoked')) = (certificate IS NOT NULL)),
    CHECK ((state IN ('revoked', 'abandoned')) = (revoked_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX certificate_authorities_serial ON certificate_authorities (parent_id, serial);
CREATE UNIQUE INDEX certificate_authorities_key ON certificate_authorities (public_key_sha256);
CREATE INDEX certificate_authorities_name ON certificate_authorities (name);
CREATE INDEX certificate_authorities_organization ON certificate_authorities (organization_id, id);
CREATE INDEX certificate_authorities_creator ON certificate_authorities (created_by, id);
CREATE INDEX certificate_authorities_revoked ON certificate_authorities (parent_id, revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificate_authorities_pending ON certificate_authorities (created_at) WHERE state = 'pending';

CREATE TABLE certificates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    common_name TEXT NOT NULL,
    subject_dn TEXT NOT NULL,
    type TEXT NOT NULL,
    key_type TEXT NOT NULL,
    key_size INTEGER NOT NULL,
    valid_days INTEGER NOT NULL,
    organization_id INTEGER,
    created_by INTEGER,
    serial TEXT NOT NULL,
    tbs BLOB,
    der BLOB,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'valid', 'revoked', 'abandoned')),
    revoked_at INTEGER,
    revocation_reason INTEGER NOT NULL DEFAULT 0,
    revocation_text TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((state IN ('valid', 'revoked')) = (der IS NOT NULL)),
    CHECK ((state IN ('revoked', 'abandoned')) = (revoked_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX certificates_serial ON certificates (issuer_id, serial);
CREATE INDEX certificates_issuer ON certificates (issuer_id, id);
CREATE INDEX certificates_organization ON certificates (organization_id, id);
CREATE INDEX certificates_creator ON certificates (created_by, id);
CREATE INDEX certificates_expiry ON certificates (issuer_id, not_after);
CREATE INDEX certificates_revoked ON certificates (issuer_id, revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificates_pending ON certificates (created_at) WHERE state = 'pending';

-- Apart, so that no list ever reads a key.
CREATE TABLE certificate_keys (
    certificate_id INTEGER PRIMARY KEY REFERENCES certificates (id),
    sealed_key BLOB NOT NULL
) STRICT;

CREATE TABLE crls (
    ca_id INTEGER NOT NULL REFERENCES certificate_authorities (id),
    number INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    der BLOB NOT NULL,
    PRIMARY KEY (ca_id, number)
) STRICT;

CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    action TEXT NOT NULL,
    user_id INTEGER,
    username TEXT NOT NULL,
    organization_id INTEGER,
    resource_type TEXT NOT NULL,
    resource_id INTEGER,
    detail TEXT NOT NULL,
    request_id TEXT NOT NULL,
    remote_addr TEXT NOT NULL
) STRICT;
CREATE INDEX audit_log_created ON audit_log (created_at);
CREATE INDEX audit_log_user ON audit_log (user_id, id);
CREATE INDEX audit_log_organization ON audit_log (organization_id, id);
CREATE INDEX audit_log_resource ON audit_log (resource_type, resource_id, id);
