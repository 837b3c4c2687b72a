package store

import (
	"context"
	"strings"
	"time"

	"gorm.io/gorm"

	"signet/ca"
)

// What a search costs is estimated from a sample of certificates: some in a row from each of several places, all over them.
const (
	samplePlaces = 20
	sampleRow    = 50
	sampleAge    = 30 * time.Second
)

type sample struct {
	taken    time.Time
	indexed  bool // the index of names exists
	rows     []sampleCertificate
	trigrams map[string]int // how many rows have these three octets in their names
}

type sampleCertificate struct {
	issuer                int64
	organization, creator *int64
	state, names          string
	notAfter              instant
	hidden                bool
}

const sampleSQL = `SELECT to_regclass('certificates_names') IS NOT NULL, issuer_id, organization_id, created_by, state, names, not_after, ` + hidden + `
	FROM (SELECT min(id) AS first, max(id) AS last FROM certificates) ends, generate_series(0, ? - 1) AS place,
		LATERAL (SELECT issuer_id, organization_id, created_by, state, names, not_after FROM certificates
			WHERE id >= first + (last - first) * place / ? AND ` + shortNames + ` ORDER BY id LIMIT ?) found`

// sampled takes a sample unless there is a new one. Of parallel calls each may take its own.
func (db *DB) sampled(ctx context.Context, q *gorm.DB) (*sample, error) {
	if old := db.sample.Load(); old != nil && time.Since(old.taken) < sampleAge {
		return old, nil
	}
	s := &sample{taken: time.Now(), trigrams: map[string]int{}}
	rows, err := db.query(ctx, q, sampleSQL, samplePlaces, samplePlaces, sampleRow)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r sampleCertificate
		err := rows.Scan(&s.indexed, &r.issuer, &r.organization, &r.creator, &r.state, &r.names, &r.notAfter, &r.hidden)
		if err != nil {
			return nil, err
		}
		s.rows = append(s.rows, r)
		had := map[string]bool{}
		for i := range max(len(r.names)-2, 0) {
			if t := r.names[i : i+3]; !had[t] {
				had[t] = true
				s.trigrams[t]++
			}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	db.sample.Store(s)
	return s, nil
}

// matches reports whether a filter would find a certificate.
func (r *sampleCertificate) matches(f ca.CertificateFilter) bool {
	is := func(have *int64, want int64) bool { return have != nil && *have == want }
	standing := ca.Certificate{State: ca.State(r.state), NotAfter: r.notAfter.Time}
	return !r.hidden &&
		(f.Scope.All || f.Scope.UserID != 0 && is(r.creator, f.Scope.UserID) ||
			f.Scope.OrganizationID != nil && is(r.organization, *f.Scope.OrganizationID)) &&
		(f.IssuerID == nil || *f.IssuerID == r.issuer) &&
		(f.Status == "" || f.Status == standing.Status(f.Now)) &&
		(f.ExpiresBefore == nil || r.notAfter.Before(*f.ExpiresBefore)) &&
		strings.Contains(r.names, f.Query)
}

// share is what part of all certificates matches a filter; a little when none of the sample does.
func (s *sample) share(f ca.CertificateFilter) float64 {
	n := 0
	for i := range s.rows {
		if s.rows[i].matches(f) {
			n++
		}
	}
	return s.part(n)
}

func (s *sample) part(n int) float64 { return (float64(n) + 0.5) / float64(len(s.rows)+1) }

// rarest is the part of a text that the fewest names have, of those that the index of names can look up, and what part of all
// certificates has it. It is "" when the index cannot look up the text: it knows three characters in a row, of words.
func (s *sample) rarest(text string) (piece string, share float64) {
	for from := 0; from <= max(len(text)-pieceLength, 0) && from < maxPieces; from++ {
		one := strings.ToValidUTF8(text[from:min(from+pieceLength, len(text))], "") // without what is left of a character at its ends
		if trigrams(one) == 0 {
			continue
		}
		n := 0
		for i := range s.rows {
			if strings.Contains(s.rows[i].names, one) {
				n++
			}
		}
		likely := s.part(n)
		if n == 0 { // as if its parts had nothing to do with each other
			likely = 1
			for i := range len(one) - 2 {
				likely *= s.part(s.trigrams[one[i:i+3]])
			}
			likely = min(likely, s.part(0))
		}
		if piece == "" || likely < share {
			piece, share = one, likely
		}
	}
	return piece, share
}

const (
	pieceLength = 6 // short parts are looked up faster
	maxPieces   = 32
)

// trigrams is how many entries of the index have to hold what has the text: it splits text into words, which begin with two
// spaces and end with one. Letters that not every locale takes for such count for none.
func trigrams(text string) (n int) {
	for from := 0; from < len(text); {
		if !letter(text[from]) {
			from++
			continue
		}
		to := from
		for to < len(text) && letter(text[to]) {
			to++
		}
		known := to - from
		if from > 0 && text[from-1] < 0x80 {
			known += 2
		}
		if to < len(text) && text[to] < 0x80 {
			known++
		}
		n += max(known-2, 0)
		from = to
	}
	return n
}

func letter(b byte) bool { return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' }

// estimate is what a search for part of a name has before it, in certificates to look at.
type estimate struct {
	first, last int64 // ids after the cursor
	indexed     bool
	piece       string
	scan, fetch float64 // by looking through certificates until the page is full, and by reading all that have the piece
}

func (s *search) estimate(ctx context.Context) (e estimate, err error) {
	known, err := s.db.sampled(ctx, s.q)
	if err != nil {
		return e, err
	}
	e.first, err = s.db.number(ctx, s.q, "SELECT coalesce(min(id), 0) FROM certificates WHERE id > ?", s.page.After)
	if err != nil {
		return e, err
	}
	if e.last, err = s.db.number(ctx, s.q, "SELECT coalesce(max(id), 0) FROM certificates"); err != nil {
		return e, err
	}
	all := float64(e.last - e.first + 1)
	e.scan = min(all, float64(s.want())/known.share(s.filter))
	piece, share := known.rarest(s.filter.Query)
	e.piece, e.indexed = piece, known.indexed && piece != ""
	e.fetch = share * all * fetchCost
	return e, nil
}
