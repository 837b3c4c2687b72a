-- +goose Up

-- Which user sent which request under which key, and what came of it, for 24 hours. Neither key nor request can be read from it.
CREATE TABLE idempotency_keys (
    user_id INTEGER NOT NULL,
    key_sha256 BLOB NOT NULL,
    request BLOB NOT NULL, -- keyed hash
    attempt INTEGER NOT NULL, -- that has the claim
    claimed_at INTEGER NOT NULL,
    result_id INTEGER, -- of what was made; NULL until then
    PRIMARY KEY (user_id, key_sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_claimed ON idempotency_keys (claimed_at);
