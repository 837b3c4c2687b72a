-- +goose Up

-- Since 00004 each certificate has its names; those from before get the one that is known.
UPDATE certificates SET names = lower(common_name) WHERE names = '';

-- A serial number is looked for with and without its issuer.
DROP INDEX certificates_serial;
CREATE UNIQUE INDEX certificates_serial ON certificates (serial, issuer_id);

CREATE INDEX certificates_revoked ON certificates (id) WHERE state = 'revoked';
CREATE INDEX certificate_authorities_deleted ON certificate_authorities (id) WHERE deleted_at IS NOT NULL;

-- The trail is read by time, newest first; entries of the same moment by id.
DROP INDEX audit_log_created;
DROP INDEX audit_log_user;
DROP INDEX audit_log_organization;
DROP INDEX audit_log_resource;
CREATE INDEX audit_log_created ON audit_log (created_at, id);
CREATE INDEX audit_log_action ON audit_log (action, created_at, id);
CREATE INDEX audit_log_user ON audit_log (user_id, created_at, id);
CREATE INDEX audit_log_organization ON audit_log (organization_id, created_at, id);
CREATE INDEX audit_log_resource ON audit_log (resource_id, created_at, id);
CREATE INDEX audit_log_others ON audit_log (resource_type, created_at, id) WHERE resource_type <> 'certificate';
