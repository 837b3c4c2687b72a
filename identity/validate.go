package identity

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"signet/fault"
	"signet/policy"
)

const (
	maxName     = 255 // characters of a username or of an organization's name
	maxEmail    = 254 // octets (RFC 5321, section 4.5.3.1.3, less the angle brackets)
	minPassword = 8   // characters
)

// problems collects the malformed fields of a request body.
type problems []fault.Field

// add notes a problem with a field of the body, if there is one. input is shown to the caller: never a password.
func (p *problems) add(name string, input any, problem *fault.Field) {
	if problem != nil {
		problem.Loc, problem.Input = []any{"body", name}, input
		*p = append(*p, *problem)
	}
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &fault.Error{Code: fault.Unprocessable, Message: "The request is malformed", Fields: p}
}

func (r Registration) check() error {
	var p problems
	p.add("username", r.Username, usernameProblem(r.Username))
	p.add("email", r.Email, emailProblem(r.Email))
	p.add("password", nil, passwordProblem(r.Password))
	p.add("role", r.Role, roleProblem(r.Role))
	return p.err()
}

func (u UserPatch) check() error {
	var p problems
	if u.Email != nil {
		p.add("email", *u.Email, emailProblem(*u.Email))
	}
	if u.Password != nil {
		p.add("password", nil, passwordProblem(*u.Password))
	}
	if u.Role != nil {
		p.add("role", *u.Role, roleProblem(*u.Role))
	}
	return p.err()
}

func usernameProblem(s string) *fault.Field {
	n := utf8.RuneCountInString(s)
	switch {
	case n < 1:
		return &fault.Field{Type: "string_too_short", Msg: "String should have at least 1 character"}
	case n > maxName:
		return &fault.Field{Type: "string_too_long", Msg: "String should have at most 255 characters"}
	case strings.TrimSpace(s) != s:
		return &fault.Field{Type: "value_error", Msg: "Value error, a username must not begin or end with a space"}
	case !printable(s): // two names that look the same in a log are a disguise
		return &fault.Field{Type: "value_error", Msg: "Value error, a username must consist of printable characters"}
	}
	return nil
}

// emailProblem accepts an addr-spec (RFC 5322, section 3.4.1) and nothing around it.
func emailProblem(s string) *fault.Field {
	const msg = "value is not a valid email address: "
	if len(s) > maxEmail {
		return &fault.Field{Type: "value_error", Msg: msg + "it has more than 254 octets"}
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || !printable(s) {
		return &fault.Field{Type: "value_error", Msg: msg + "an address is of the form name@host"}
	}
	return nil
}

func passwordProblem(s string) *fault.Field {
	switch {
	case utf8.RuneCountInString(s) < minPassword:
		return &fault.Field{Type: "string_too_short", Msg: "String should have at least 8 characters"}
	case len(s) > maxPassword:
		return &fault.Field{Type: "string_too_long", Msg: "String should have at most 72 octets"}
	}
	return nil
}

func roleProblem(r policy.Role) *fault.Field {
	switch r {
	case policy.RoleSuperuser, policy.RoleAdmin, policy.RoleUser:
		return nil
	}
	return &fault.Field{Type: "enum", Msg: "Input should be 'superuser', 'admin' or 'user'"}
}

// checkOrganization checks what is given of an organization; nil is not given.
func checkOrganization(name, description *string) error {
	var p problems
	if name != nil {
		p.add("name", *name, organizationNameProblem(*name))
	}
	if description != nil && !text(*description) {
		p.add("description", *description, &fault.Field{Type: "value_error", Msg: "Value error, a description must not contain control characters"})
	}
	return p.err()
}

func organizationNameProblem(s string) *fault.Field {
	switch {
	case strings.TrimSpace(s) == "":
		return &fault.Field{Type: "string_too_short", Msg: "String should have at least 1 character"}
	case utf8.RuneCountInString(s) > maxName:
		return &fault.Field{Type: "string_too_long", Msg: "String should have at most 255 characters"}
	case !utf8.ValidString(s), strings.ContainsFunc(s, unicode.IsControl):
		return &fault.Field{Type: "value_error", Msg: "Value error, a name must not contain control characters"}
	}
	return nil
}

// printable reports whether s is valid UTF-8 made of letters, marks, digits, punctuation, symbols and plain spaces.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// text reports whether s is valid UTF-8 whose only control characters are tabs and line breaks.
func text(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r'
	})
}
