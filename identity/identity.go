// Package identity is the people who use the CA: users, organizations, passwords, access and refresh tokens.
//
// What must never happen: a password or a token is stored or logged in the clear; a session outlives its user, a
// password change or a deactivation; anybody becomes superuser without the server operator's will.
package identity

import (
	"context"
	"time"

	"signet/audit"
	"signet/policy"
)

// User is a person or a service with an account.
type User struct {
	ID             int64
	Username       string
	Email          string
	PasswordHash   string // bcrypt
	Role           policy.Role
	Active         bool
	Capabilities   policy.Capabilities
	OrganizationID *int64
	TokenEpoch     int64 // access tokens of earlier epochs are void
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Caller is the user as the policy sees it.
func (u User) Caller() policy.Caller {
	return policy.Caller{UserID: u.ID, Username: u.Username, Role: u.Role, OrganizationID: u.OrganizationID, Capabilities: u.Capabilities}
}

// Organization is a tenant: its members share its objects.
type Organization struct {
	ID          int64
	Name        string
	Description *string
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// RefreshToken is a refresh token as it is stored.
type RefreshToken struct {
	Hash      []byte // SHA-256 of the token
	UserID    int64
	ExpiresAt time.Time
}

// Page is a part of a list ordered by id, ascending.
type Page struct {
	After int64
	Skip  int
	Limit int
}

// Store keeps people. Each method is one transaction, and appends its audit event in that transaction; an event
// without ResourceID gets the id of the record. Errors are *fault.Error: NotFound; Conflict; Invalid for a name that
// is taken, with the message of the API ("Username already registered", "Email already registered", "Organization
// with this name already exists"); Unavailable when the database does not answer.
type Store interface {
	// CreateFirstUser creates a user if there never was one. Of parallel calls exactly one succeeds; Conflict
	// otherwise.
	CreateFirstUser(ctx context.Context, u User, e audit.Event) (User, error)
	// CreateUser creates a user. NotFound "Organization not found" when its organization does not exist.
	CreateUser(ctx context.Context, u User, e audit.Event) (User, error)
	// HasUsers reports whether there ever was a user.
	HasUsers(ctx context.Context) (bool, error)
	User(ctx context.Context, id int64) (User, error)
	// UserByName finds a user by exact username.
	UserByName(ctx context.Context, username string) (User, error)
	// Users lists users and counts them all.
	Users(ctx context.Context, p Page) ([]User, int64, error)
	// UpdateUser stores Email, PasswordHash, Role, Active, Capabilities, OrganizationID and TokenEpoch of u, if the
	// stored row still has u's UpdatedAt; Conflict otherwise. When TokenEpoch changes, the user's refresh tokens
	// are revoked.
	UpdateUser(ctx context.Context, u User, e audit.Event) (User, error)
	// DeleteUser removes the account and its sessions. Audit entries and created objects stay.
	DeleteUser(ctx context.Context, id int64, e audit.Event) error
	// CreatedOutside reports whether the user created a CA or a certificate that does not belong to this organization,
	// be it another one's or nobody's. What is deleted, abandoned or not completed yet counts.
	CreatedOutside(ctx context.Context, userID, organizationID int64) (bool, error)

	CreateOrganization(ctx context.Context, o Organization, e audit.Event) (Organization, error)
	Organization(ctx context.Context, id int64) (Organization, error)
	// Organizations lists organizations and counts them all; only restricts the list to one id when not nil.
	Organizations(ctx context.Context, only *int64, p Page) ([]Organization, int64, error)
	UpdateOrganization(ctx context.Context, o Organization, e audit.Event) (Organization, error)
	// DeleteOrganization removes an organization. Invalid "Organization has users" while it has users; Invalid
	// "Organization has certificate authorities" while a CA that is not deleted belongs to it.
	DeleteOrganization(ctx context.Context, id int64, e audit.Event) error
	// Members lists the users of an organization.
	Members(ctx context.Context, organizationID int64, p Page) ([]User, int64, error)

	// CreateRefreshToken stores a new refresh token; NotFound when its user is gone. It is ordered with UpdateUser of
	// the same user: a token stored before an epoch is raised is revoked with it.
	CreateRefreshToken(ctx context.Context, t RefreshToken, e audit.Event) error
	// RotateRefreshToken uses up the token with the hash old and stores next for the same user. Of parallel calls
	// with one old token exactly one succeeds; Unauthenticated otherwise, also when it is expired at now, revoked
	// or unknown, or its user is not active.
	RotateRefreshToken(ctx context.Context, old []byte, next RefreshToken, now time.Time, e audit.Event) (User, error)
	// RefreshTokenOwner returns whose token has this hash, used or not. NotFound when there is none.
	RefreshTokenOwner(ctx context.Context, hash []byte) (int64, error)
	// Logout revokes a refresh token (if hash is known) and the access token jti until it expires.
	Logout(ctx context.Context, hash []byte, jti string, expires time.Time, e audit.Event) error
	// Session returns the user of an access token in one round trip. NotFound when the user is gone; revoked
	// reports whether the jti was revoked.
	Session(ctx context.Context, userID int64, jti string) (u User, revoked bool, err error)

	// SetBootstrapToken stores the hash of the one-time token that permits the first user from a remote address,
	// replacing an earlier one.
	SetBootstrapToken(ctx context.Context, hash []byte) error
	// BootstrapToken returns that hash; NotFound when none is set.
	BootstrapToken(ctx context.Context) ([]byte, error)
	// Prune removes refresh tokens and revoked jtis that expired before now.
	Prune(ctx context.Context, now time.Time) error

	// Record appends an event that records no change, such as a failed login.
	Record(ctx context.Context, e audit.Event) error
}
