INSERT INTO organizations (name, description, created_at, updated_at) VALUES ('Example', 'first', {t}, {t});
INSERT INTO bootstrap (id, created_at) VALUES (1, {t});
INSERT INTO users (username, email, email_key, password_hash, role, active, create_ca, create_cert, revoke_cert, export_private_key, delete_ca, organization_id, token_epoch, created_at, updated_at)
VALUES ('alice', 'Alice@example.com', 'alice@example.com', 'hash', 'admin', {true}, {true}, {true}, {true}, {false}, {false}, 1, 1, {t}, {t});
INSERT INTO refresh_tokens (hash, user_id, expires_at) VALUES ({blob}, 1, {t});
INSERT INTO certificate_authorities (name, subject_dn, key_type, key_size, valid_days, allow_leaf_certs, organization_id, created_by, key_id, public_key, public_key_sha256, serial, certificate, not_before, not_after, state, revocation_sequence, crl_number, created_at, updated_at)
VALUES ('Root', 'CN=Root', 'rsa', 4096, 3650, {true}, 1, 1, {blob}, {blob}, {blob}, '5a', {blob}, {t}, {t}, 'valid', 3, 2, {t}, {t});
INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by, serial, der, not_before, not_after, state, created_at, updated_at)
VALUES (1, 'host.example', 'CN=host.example', 'server', 'rsa', 2048, 365, 1, 1, '1f', {blob}, {t}, {t}, 'valid', {t}, {t});
INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, serial, der, not_before, not_after, state, revoked_at, revocation_reason, revocation_text, created_at, updated_at)
VALUES (1, 'lost.example', 'CN=lost.example', 'client', 'ec', 256, 365, '2f', {blob}, {t}, {t}, 'revoked', {t}, 1, 'key compromise', {t}, {t});
INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, serial, tbs, not_before, not_after, state, revoked_at, revocation_text, created_at, updated_at)
VALUES (1, 'never.example', 'CN=never.example', 'server', 'ec', 256, 365, '3f', {blob}, {t}, {t}, 'abandoned', {t}, 'never completed', {t}, {t});
INSERT INTO certificate_authorities (name, subject_dn, key_type, key_size, valid_days, parent_id, allow_leaf_certs, key_id, serial, certificate, not_before, not_after, state, revoked_at, revocation_reason, revocation_text, revocation_sequence, crl_number, created_at, updated_at)
VALUES ('Lost', 'CN=Lost', 'rsa', 4096, 3650, 1, {true}, {other}, '4f', {blob}, {t}, {t}, 'revoked', {t}, 5, 'closed', 0, 0, {t}, {t});
INSERT INTO certificate_keys (certificate_id, sealed_key) VALUES (1, {blob});
INSERT INTO crls (ca_id, number, this_update, next_update, sequence, entries, der) VALUES (1, 1, {t}, {t}, 2, 2, {blob});
INSERT INTO audit_log (created_at, action, user_id, username, organization_id, resource_type, resource_id, detail, request_id, remote_addr)
VALUES ({t}, 'ca_create', 1, 'alice', 1, 'ca', 1, 'created', 'r-1', '192.0.2.1');
