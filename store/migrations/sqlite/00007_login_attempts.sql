-- +goose Up

-- How often a client tried to log in since its window was opened, on whichever replica. A client is an address, or the /64 of an
-- IPv6 address.
CREATE TABLE login_attempts (
    client TEXT PRIMARY KEY,
    opened_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) STRICT;
CREATE INDEX login_attempts_opened ON login_attempts (opened_at);
