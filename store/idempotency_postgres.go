package store

import "slices"

// completeClaimedSQL is completeSQL for a group in which there are claims: such an item is completed with its claim, or neither
// is. The reservation is locked first, so that it is still there when the claim has its result.
const completeClaimedSQL = `
WITH item AS MATERIALIZED (
		SELECT * FROM unnest($11::bigint[], $12::bytea[], $13::bytea[], ` + eventArraysSQL + `, $15::bigint[], $16::bytea[], $17::bigint[])
			WITH ORDINALITY AS i (item_id, der, sealed_key, ` + eventColumnsSQL + `, k_user, k_key, k_attempt, n)
	),
	reserved AS MATERIALIZED (
		SELECT r.id AS reserved_id, k_user, k_key, k_attempt FROM item JOIN reservations r ON r.id = item_id WHERE k_user IS NOT NULL FOR UPDATE OF r
	),
	held AS (
		UPDATE idempotency_keys k SET result_id = reserved_id FROM reserved
		WHERE k.user_id = k_user AND k.key_sha256 = k_key AND k.attempt = k_attempt AND k.result_id IS NULL
		RETURNING reserved_id
	),
	made AS (
		DELETE FROM reservations r USING item
		WHERE r.id = item_id AND (k_user IS NULL OR item_id IN (SELECT reserved_id FROM held))
		RETURNING r.*, item.*
	),` + completedSQL

// withClaims is the statement of a group of completions with its arguments, and those of the claims in it, if there are any.
func withClaims(jobs []*job, sql string, args []any) (string, []any) {
	if !slices.ContainsFunc(jobs, func(j *job) bool { return j.complete.claim != nil }) {
		return sql, args
	}
	users, attempts, keys := make([]*int64, len(jobs)), make([]int64, len(jobs)), make([][]byte, len(jobs))
	for i, j := range jobs {
		if c := j.complete.claim; c != nil {
			users[i], keys[i], attempts[i] = &c.UserID, c.Key[:], c.Attempt
		}
	}
	return completeClaimedSQL, append(args, users, keys, attempts)
}
