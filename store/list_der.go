package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"signet/ca"
)

// chunkSize is how many octets a row of crl_chunks has; the last of a list has fewer. The migration wrote it too. A driver has
// what it sends or reads in memory twice.
const chunkSize = 1 << 20

// storeDER stores the octets of a list.
func storeDER(tx *gorm.DB, r *listRow, der []byte) error {
	part := 0
	for data := range slices.Chunk(der, chunkSize) {
		err := tx.Exec("INSERT INTO crl_chunks (ca_id, number, delta, part, data) VALUES (?, ?, ?, ?, ?)",
			r.CAID, r.Number, r.Delta, part, data).Error
		if err != nil {
			return err
		}
		part++
	}
	return nil
}

// dropDER removes the octets of lists of the same CA and kind as r.
func dropDER(tx *gorm.DB, r *listRow, numbers []int64) error {
	if len(numbers) == 0 {
		return nil
	}
	return tx.Exec("DELETE FROM crl_chunks WHERE ca_id = ? AND delta = ? AND number IN ?", r.CAID, r.Delta, numbers).Error
}

// currentSQL gives a row for each chunk of the current list, in no order: to sort them, a database may copy them. It is one
// statement, so that nobody drops the list meanwhile.
const currentSQL = `
SELECT l.*, chunk.part, chunk.data
FROM (
	SELECT ` + listMetadata + `, (
		SELECT min(next.this_update) FROM crls next
		WHERE next.ca_id = @ca AND next.shard = @shard AND next.delta = @delta AND next.kept AND next.this_update > @now
	) AS until
	FROM crls
	WHERE ca_id = @ca AND shard = @shard AND delta = @delta AND kept AND this_update <= @now
	ORDER BY this_update DESC, number DESC LIMIT 1
) l
LEFT JOIN crl_chunks chunk ON chunk.ca_id = l.ca_id AND chunk.number = l.number AND chunk.delta = l.delta`

// CurrentList implements ca.Store.
func (db *DB) CurrentList(ctx context.Context, s ca.ListScope, now time.Time) (l ca.List, until time.Time, err error) {
	err = db.read(ctx, "CurrentList", func(q *gorm.DB) error {
		rows, err := q.Raw(currentSQL, map[string]any{"ca": s.CAID, "shard": s.Shard, "delta": s.Delta, "now": at(now)}).Rows()
		if err != nil {
			return err
		}
		defer rows.Close()
		l, until, err = readCurrent(rows)
		return err
	})
	if err != nil {
		return ca.List{}, time.Time{}, err
	}
	return l, until, nil
}

// readCurrent reads what currentSQL gives into one piece of memory.
func readCurrent(rows *sql.Rows) (ca.List, time.Time, error) {
	var r listRow
	var until *instant
	var der []byte
	read := int64(0)
	for rows.Next() {
		var part *int64
		var data sql.RawBytes
		err := rows.Scan(&r.CAID, &r.Number, &r.Delta, &r.Shard, &r.Base, &r.State, &r.Attempts, &r.ThisUpdate, &r.NextUpdate,
			&r.Sequence, &r.Entries, &r.Size, &r.SHA256, &until, &part, &data)
		if err != nil {
			return ca.List{}, time.Time{}, err
		}
		if der == nil {
			der = make([]byte, r.Size)
		}
		if part == nil {
			continue // there is no chunk
		}
		if offset := *part * chunkSize; offset <= int64(len(der)) {
			read += int64(copy(der[offset:], data))
		}
	}
	if err := rows.Err(); err != nil {
		return ca.List{}, time.Time{}, err
	}
	if r.Number == 0 {
		return ca.List{}, time.Time{}, errNoCRL
	}
	sum := sha256.Sum256(der)
	if len(r.SHA256) == 0 { // SQLite could not hash the lists of older versions
		r.SHA256 = sum[:]
	}
	if read != r.Size || !bytes.Equal(sum[:], r.SHA256) {
		return ca.List{}, time.Time{}, fmt.Errorf("list %d of CA %d is damaged in the database: its octets are not those that were signed",
			r.Number, r.CAID)
	}
	l := r.list()
	l.DER = der
	return l, timeOf(until), nil
}
