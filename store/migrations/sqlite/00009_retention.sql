-- +goose Up

-- What retention removed, a row for each batch, written in the transaction that removes it. Rows stay for ever. sha256 is that
-- of the lines that tell what was removed; archive is the file that keeps them, '' when none does. open is 1 until the end of
-- the transaction, and there is one writer: nobody else ever sees it.
CREATE TABLE retention_cuts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('certificates', 'crls', 'audit_log')),
    ca_id INTEGER REFERENCES certificate_authorities (id),
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL CHECK (last_id >= first_id),
    count INTEGER NOT NULL CHECK (count > 0),
    before INTEGER NOT NULL CHECK (before <= created_at - 86400000000),
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    archive TEXT NOT NULL,
    open INTEGER NOT NULL DEFAULT 1 CHECK (open IN (0, 1)),
    CHECK ((kind = 'audit_log') = (ca_id IS NULL))
) STRICT;
CREATE UNIQUE INDEX retention_cuts_open ON retention_cuts (open) WHERE open = 1;

-- +goose StatementBegin
CREATE TRIGGER retention_cuts_no_delete BEFORE DELETE ON retention_cuts
BEGIN
    SELECT RAISE(ABORT, 'retention_cuts is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER retention_cuts_no_update BEFORE UPDATE ON retention_cuts
WHEN OLD.open = 0 OR NEW.open = 1
    OR (OLD.id, OLD.created_at, OLD.kind, OLD.ca_id, OLD.first_id, OLD.last_id, OLD.count, OLD.before, OLD.sha256, OLD.archive)
        IS NOT (NEW.id, NEW.created_at, NEW.kind, NEW.ca_id, NEW.first_id, NEW.last_id, NEW.count, NEW.before, NEW.sha256, NEW.archive)
BEGIN
    SELECT RAISE(ABORT, 'retention_cuts is append-only');
END;
-- +goose StatementEnd

-- Entries leave the audit trail only in a transaction that has said which: of a range of ids, none younger than it says, and none
-- that tells of a removal.
DROP TRIGGER audit_log_no_delete;

-- +goose StatementBegin
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
WHEN NOT EXISTS (
    SELECT 1 FROM retention_cuts c
    WHERE c.open = 1 AND c.kind = 'audit_log' AND OLD.id BETWEEN c.first_id AND c.last_id AND OLD.created_at < c.before
        AND OLD.action <> 'retention')
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;
-- +goose StatementEnd
