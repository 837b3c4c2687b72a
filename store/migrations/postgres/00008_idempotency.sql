-- +goose Up

-- What was created with an Idempotency-Key, or is being created. The fingerprint is the SHA-256 of the request.
CREATE TABLE idempotency_keys (
    user_id     bigint      NOT NULL REFERENCES users ON DELETE CASCADE,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    token       text        NOT NULL, -- of the request that has the key; another one that completes with it creates nothing
    claimed_at  timestamptz NOT NULL,
    done_at     timestamptz,
    resource_id bigint,
    PRIMARY KEY (user_id, key),
    CHECK ((done_at IS NULL) = (resource_id IS NULL))
);
CREATE INDEX idempotency_keys_claimed ON idempotency_keys (claimed_at);
