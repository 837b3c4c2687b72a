package store

import (
	"cmp"
	"context"
	"slices"

	"gorm.io/gorm"

	"signet/ca"
)

const (
	// countCap is how many matches are counted where nothing keeps their number.
	countCap = 10_000
	// block is how many ids the first step of a scan covers, and each entry of the index certificates_ends; what has fewer
	// certificates is small: all of them are looked through without thinking about it.
	block = 8192
	// fetchCost is what it costs to read a certificate that the index of names finds, in certificates of a scan.
	fetchCost = 10
)

// search finds the ids of a page of certificates.
type search struct {
	db           *DB
	q            *gorm.DB
	filter       ca.CertificateFilter
	page         ca.Page
	match        condition // all that is asked, scope and query aside
	scope        condition
	alternatives []condition
}

// want is how many matches after the cursor are needed.
func (s *search) want() int { return skipped(s.page.Skip) + max(s.page.Limit, 0) }

// cut takes the page out of the matches after the cursor, in the order of ids.
func (s *search) cut(ids []int64) []int64 {
	ids = ids[min(len(ids), skipped(s.page.Skip)):]
	return ids[:min(len(ids), max(s.page.Limit, 0))]
}

func (s *search) timed() bool {
	return s.filter.Status == "valid" || s.filter.Status == "expired" || s.filter.ExpiresBefore != nil
}

func (s *search) run(ctx context.Context) ([]int64, ca.Total, error) {
	plain := s.filter.Query == "" && s.filter.Serial == ""
	size, err := s.kept(ctx)
	if err != nil || size == 0 {
		return nil, ca.Total{}, err
	}
	total := ca.Total{N: size}
	restricted := !s.filter.Scope.All || s.filter.IssuerID != nil
	var ids []int64
	switch {
	case plain && !s.timed():
		ids, err = s.stream(ctx)
		return ids, total, err
	case s.db.dialect == onSQLite || s.filter.Serial != "" || restricted && size <= block:
		return s.small(ctx)
	case s.filter.Query != "":
		return s.named(ctx)
	case s.filter.Status == "revoked":
		return s.small(ctx)
	}
	if total, err = s.countEnds(ctx); err != nil {
		return nil, total, err
	}
	ids, err = s.ending(ctx)
	return ids, atLeast(total, s.page.Skip, len(ids)), err
}

// kept is the number of certificates of a scope, an issuer and a state: all that counters know.
func (s *search) kept(ctx context.Context) (int64, error) {
	c := condition{}.and("NOT " + hidden)
	switch s.filter.Status {
	case "":
		c = c.and(completed)
	case "revoked":
		c = c.and("state = 'revoked'")
	default:
		c = c.and("state = 'valid'")
	}
	if s.filter.IssuerID != nil {
		c = c.and("issuer_id = ?", *s.filter.IssuerID)
	}
	c = both(c, s.scope)
	return s.db.number(ctx, s.q, "SELECT CAST(coalesce(sum(n), 0) AS bigint) FROM certificate_counts WHERE "+c.String(), c.args...)
}

// stream reads the page in the order of ids, from an index for each alternative of the scope.
func (s *search) stream(ctx context.Context) ([]int64, error) {
	c := s.complete().and("id > ?", s.page.After)
	limit, skip := max(s.page.Limit, 0), skipped(s.page.Skip)
	text, args := union("SELECT id FROM certificates WHERE ", c, s.alternatives, " ORDER BY id LIMIT ?", limit+skip)
	return column[int64](ctx, s.db, s.q, "SELECT id FROM ("+text+") found ORDER BY id LIMIT ? OFFSET ?", append(args, limit, skip)...)
}

// complete is the condition with the query, a serial number included.
func (s *search) complete() condition {
	if s.filter.Query == "" {
		return s.match
	}
	return s.match.and("(serial = ? OR "+s.hasName()+")", s.filter.Query, s.filter.Query)
}

// small looks through all that there is of the scope.
func (s *search) small(ctx context.Context) ([]int64, ca.Total, error) {
	ids, err := s.stream(ctx)
	if err != nil {
		return nil, ca.Total{}, err
	}
	c := both(s.complete(), s.scope)
	n, err := s.db.number(ctx, s.q, "SELECT count(*) FROM (SELECT 1 FROM certificates WHERE "+c.String()+" LIMIT ?) found",
		append(c.args, countCap+1)...)
	return ids, atLeast(capped(n), s.page.Skip, len(ids)), err
}

// capped is the total when at most countCap+1 were counted.
func capped(n int64) ca.Total { return ca.Total{N: min(n, countCap), AtLeast: n > countCap} }

// atLeast is a total that is not less than what the page shows.
func atLeast(t ca.Total, skip, found int) ca.Total {
	if t.AtLeast && found > 0 {
		t.N = max(t.N, int64(max(skip, 0)+found))
	}
	return t
}

// ending reads the page of what ends in a period, from the blocks that have such certificates. OFFSET 0 makes the planner take
// one block after the other.
func (s *search) ending(ctx context.Context) ([]int64, error) {
	last, err := s.db.number(ctx, s.q, "SELECT coalesce(max(id), 0) FROM certificates")
	if err != nil {
		return nil, err
	}
	c := both(s.match, s.scope).and("id > ?", s.page.After)
	return column[int64](ctx, s.db, s.q, `SELECT id FROM generate_series(CAST(? AS bigint), CAST(? AS bigint)) WITH ORDINALITY AS s (block, place),
			LATERAL (SELECT id FROM certificates WHERE id / 8192 = s.block AND `+c.String()+` OFFSET 0) found
		ORDER BY place, id LIMIT ? OFFSET ?`,
		append(append([]any{s.page.After / block, last / block}, c.args...), max(s.page.Limit, 0), skipped(s.page.Skip))...)
}

// countEnds counts what ends in a period, issuer by issuer, and stops when it has seen countCap certificates that do.
func (s *search) countEnds(ctx context.Context) (ca.Total, error) {
	columns := "1 AS organization_id, 1 AS created_by" // nothing that only the certificate itself knows
	if !s.filter.Scope.All {
		columns = "organization_id, created_by"
	}
	scope := s.scope
	args := append(append(slices.Clone(scope.args), s.match.args...), countCap+1, countCap+1)
	rows, err := s.db.query(ctx, s.q, `SELECT count(*), count(*) FILTER (WHERE `+scope.String()+`) FROM (
		SELECT found.organization_id, found.created_by FROM certificate_authorities issuer, LATERAL (
			SELECT `+columns+` FROM certificates WHERE issuer_id = issuer.id AND `+s.match.String()+` LIMIT ?) found LIMIT ?) counted`, args...)
	if err != nil {
		return ca.Total{}, err
	}
	defer rows.Close()
	var seen, matching int64
	for rows.Next() {
		if err := rows.Scan(&seen, &matching); err != nil {
			return ca.Total{}, err
		}
	}
	return ca.Total{N: min(matching, countCap), AtLeast: seen > countCap}, rows.Err()
}

// merge puts two lists of ids that have none in common into one.
func merge(a, b []int64) []int64 {
	if len(b) == 0 {
		return a
	}
	all := append(slices.Clone(a), b...)
	slices.SortFunc(all, cmp.Compare[int64])
	return all
}
