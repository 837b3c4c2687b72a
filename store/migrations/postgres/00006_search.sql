-- +goose Up

-- Whoever has many certificates may make the indexes below beforehand, with CONCURRENTLY and under these names: those that are
-- new are then left as they are.

-- Since 00004 each certificate has its names; those from before get the one that is known.
UPDATE certificates SET names = lower(common_name) WHERE names = '';

-- A serial number is looked for with and without its issuer.
DROP INDEX certificates_serial;
CREATE UNIQUE INDEX certificates_serial ON certificates (serial, issuer_id);

-- Lists are in the order of ids. With what hides a certificate, pages are found without reading any.
DROP INDEX IF EXISTS certificates_issuer, certificates_organization, certificates_creator;
CREATE INDEX certificates_issuer ON certificates (issuer_id, id) INCLUDE (state);
CREATE INDEX certificates_organization ON certificates (organization_id, id) INCLUDE (issuer_id, state);
CREATE INDEX certificates_creator ON certificates (created_by, id) INCLUDE (issuer_id, state);
CREATE INDEX certificate_authorities_deleted ON certificate_authorities (id) WHERE deleted_at IS NOT NULL;

-- What many certificates have in common is found by looking through them, a hundred to a page. An entry of an index has 2704
-- octets at most: the few certificates with more names than fit are found apart, and read.
CREATE INDEX IF NOT EXISTS certificates_listing ON certificates (id)
    INCLUDE (issuer_id, organization_id, created_by, state, not_after, names) WHERE octet_length(names) <= 2000;
CREATE INDEX IF NOT EXISTS certificates_long ON certificates (id) WHERE octet_length(names) > 2000;
-- What few have is found by three characters of it. A query also reads what is not sorted in yet: little.
-- +goose StatementBegin
DO $$
DECLARE
    place text;
BEGIN
    BEGIN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
    EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
        RAISE WARNING 'pg_trgm is not available: searches for rare names will look through all certificates';
    END;
    SELECT nspname INTO place FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'pg_trgm';
    IF FOUND THEN
        EXECUTE format('CREATE INDEX IF NOT EXISTS certificates_names ON certificates USING gin (names %I.gin_trgm_ops)
            WITH (fastupdate = on, gin_pending_list_limit = 512)', place);
    END IF;
END
$$;
-- +goose StatementEnd
CREATE INDEX IF NOT EXISTS certificates_revoked ON certificates (id) INCLUDE (issuer_id, organization_id, created_by, not_after)
    WHERE state = 'revoked';
-- Blocks of 8192 ids, each sorted by its ends: those without a match are passed over.
CREATE INDEX IF NOT EXISTS certificates_ends ON certificates ((id / 8192), not_after)
    INCLUDE (id, issuer_id, organization_id, created_by, state);
-- What ends in a period is counted without reading certificates, whoever may see them.
DROP INDEX IF EXISTS certificates_expiry;
CREATE INDEX certificates_expiry ON certificates (issuer_id, not_after) INCLUDE (organization_id, created_by, state);
-- New certificates are searched at once, and index-only: mark pages early.
ALTER TABLE certificates SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = 20000);

-- The trail is read by time, newest first; entries of the same moment by id.
DROP INDEX IF EXISTS audit_log_created, audit_log_user, audit_log_organization, audit_log_resource;
CREATE INDEX audit_log_created ON audit_log (created_at, id);
CREATE INDEX audit_log_action ON audit_log (action, created_at, id);
CREATE INDEX audit_log_user ON audit_log (user_id, created_at, id);
CREATE INDEX audit_log_organization ON audit_log (organization_id, created_at, id);
CREATE INDEX audit_log_resource ON audit_log (resource_id, created_at, id) INCLUDE (resource_type);
CREATE INDEX audit_log_others ON audit_log (resource_type, created_at, id) WHERE resource_type <> 'certificate';
