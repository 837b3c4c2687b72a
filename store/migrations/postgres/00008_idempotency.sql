-- +goose Up

-- Which user sent which request under which key, and what came of it, for 24 hours. Neither key nor request can be read from it.
-- There is no foreign key, so that a claim locks no row of users; no id of a user is given out twice.
CREATE TABLE idempotency_keys (
    user_id    bigint      NOT NULL,
    key_sha256 bytea       NOT NULL,
    request    bytea       NOT NULL, -- keyed hash
    attempt    bigint      NOT NULL, -- that has the claim
    claimed_at timestamptz NOT NULL,
    result_id  bigint,               -- of what was made; NULL until then
    PRIMARY KEY (user_id, key_sha256)
) WITH (
    fillfactor = 80, -- each row is updated once, in place
    autovacuum_vacuum_scale_factor = 0.05
);
CREATE INDEX idempotency_keys_claimed ON idempotency_keys (claimed_at);
