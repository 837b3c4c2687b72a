package api

import (
	"net/http"
	"time"

	"signet/api/wire"
	"signet/audit"
)

func (s *server) listAuditLogs(w http.ResponseWriter, r *request) error {
	var query wire.ListAuditLogsParams
	r.query(&query)
	p := r.page(query.Skip, query.Limit, query.Cursor)
	filter := audit.Filter{
		Action: audit.Action(or(query.Action, "")), UserID: query.UserID, ResourceType: or(query.ResourceType, ""), ResourceID: query.ResourceID,
		Since: r.moment("since", query.Since), Until: r.moment("until", query.Until),
		Skip: p.skip, Limit: p.limit + 1, BeforeID: p.cursor,
	}
	if err := r.err(); err != nil {
		return err
	}
	entries, total, err := s.ca.AuditLog(r.Context(), r.caller(), filter)
	if err != nil {
		return err
	}
	return writePage(w, r, p, entries, total, func(e audit.Entry) int64 { return e.ID }, entryOf)
}

// moment reads a time from the query; zero when it is absent.
func (r *request) moment(name string, value *string) time.Time {
	if value == nil {
		return time.Time{}
	}
	t, ok := parseMoment(*value)
	if !ok {
		r.checker.add(notMoment, notMomentText, []any{"query", name}, echo(*value, 0))
	}
	return t
}

func entryOf(e audit.Entry) wire.AuditEntry {
	return wire.AuditEntry{
		ID: e.ID, CreatedAt: e.CreatedAt.UTC(), Action: wire.AuditAction(e.Action), UserID: e.UserID, Username: text(e.Username),
		OrganizationID: e.OrganizationID, ResourceType: text(e.ResourceType), ResourceID: e.ResourceID, Detail: text(e.Detail),
		RequestID: text(e.RequestID), RemoteAddr: text(e.RemoteAddr),
	}
}
