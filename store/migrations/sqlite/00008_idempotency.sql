-- +goose Up

-- What was created with an Idempotency-Key, or is being created. The fingerprint is the SHA-256 of the request.
CREATE TABLE idempotency_keys (
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    token TEXT NOT NULL, -- of the request that has the key; another one that completes with it creates nothing
    claimed_at INTEGER NOT NULL,
    done_at INTEGER,
    resource_id INTEGER,
    PRIMARY KEY (user_id, key),
    CHECK ((done_at IS NULL) = (resource_id IS NULL))
) STRICT;
CREATE INDEX idempotency_keys_claimed ON idempotency_keys (claimed_at);
