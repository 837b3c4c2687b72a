package identity

import (
	"context"
	"strings"
	"unicode"

	"signet/audit"
	"signet/policy"
)

// by begins an event of the caller; the server itself, and nobody, have user id 0.
func by(ctx context.Context, caller policy.Caller, action audit.Action) audit.Event {
	r := audit.RequestFrom(ctx)
	e := audit.Event{Action: action, Username: caller.Username, RequestID: r.ID, RemoteAddr: r.RemoteAddr}
	if caller.UserID != 0 {
		e.UserID = &caller.UserID
	}
	return e
}

// aboutUser completes an event whose object is u.
func aboutUser(e audit.Event, u User, detail string) audit.Event {
	e.ResourceType, e.OrganizationID, e.Detail = audit.ResourceUser, u.OrganizationID, detail
	if u.ID != 0 {
		e.ResourceID = &u.ID
	}
	return e
}

// aboutOrganization completes an event whose object is the organization id.
func aboutOrganization(e audit.Event, id int64, detail string) audit.Event {
	e.ResourceType, e.ResourceID, e.OrganizationID, e.Detail = audit.ResourceOrganization, &id, &id, detail
	return e
}

// asTried is a username as a stranger sent it, fit to be stored: at most maxName characters, none of them a
// control character.
func asTried(username string) string {
	var b strings.Builder
	n := 0
	for _, r := range username {
		if n++; n > maxName {
			break
		}
		if unicode.IsControl(r) {
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
	}
	return b.String()
}
