package policy

import "errors"

// Role is a person's standing.
type Role string

// The roles, from most to least powerful.
const (
	RoleSuperuser Role = "superuser" // everything, everywhere
	RoleAdmin     Role = "admin"     // everything in the own organization
	RoleUser      Role = "user"      // reads in the own organization, and what the capabilities grant
)

// Capabilities are a person's grants.
type Capabilities struct {
	CreateCA, CreateCert, RevokeCert, ExportPrivateKey, DeleteCA bool
}

// Caller is who asks. The zero value may do nothing.
type Caller struct {
	UserID         int64
	Username       string
	Role           Role
	OrganizationID *int64
	Capabilities   Capabilities

	// Operator is somebody at the command line of the server itself, who holds its database and its token anyway. No
	// request over the network ever is.
	Operator bool
}

// Action is what the caller wants to do to an object.
type Action string

// The actions.
const (
	Read             Action = "read"
	CreateCA         Action = "create_ca"
	CreateCert       Action = "create_cert"
	RevokeCert       Action = "revoke_cert"
	ExportPrivateKey Action = "export_private_key"
	DeleteCA         Action = "delete_ca"
	DrillKey         Action = "drill_key" // have a CA's key attacked; no capability grants it
)

// Object is what an action is done to, as far as permissions are concerned.
type Object struct {
	OrganizationID *int64
	CreatedBy      *int64
}

// ErrDenied is returned when the caller may not do what was asked.
var ErrDenied = errors.New("Insufficient permissions")

// Allow decides whether the caller may do the action to the object: nil, or [ErrDenied]. The rules are tried in
// this order: a superuser may do everything, as an operator does; so may the object's creator; an object without organization is theirs
// alone; another organization's object is denied; an admin of the organization may do everything; a user of the
// organization may read, and do what the capability of the action grants.
func Allow(c Caller, a Action, o Object) error {
	switch {
	case !c.known() || !a.valid():
		return ErrDenied
	case c.mayEverything():
		return nil
	case o.CreatedBy != nil && *o.CreatedBy == c.UserID:
		return nil
	case o.OrganizationID == nil:
		return ErrDenied
	case c.OrganizationID == nil || *c.OrganizationID != *o.OrganizationID:
		return ErrDenied
	case c.Role == RoleAdmin:
		return nil
	case a == Read || c.Capabilities.grant(a):
		return nil
	}
	return ErrDenied
}

// AllowRootCA decides whether the caller may create a CA that has no parent: nil, or [ErrDenied]. Superusers and
// admins may, and users who may create CAs.
func AllowRootCA(c Caller) error {
	switch {
	case !c.known():
		return ErrDenied
	case c.mayEverything(), c.Role == RoleAdmin, c.Capabilities.CreateCA:
		return nil
	}
	return ErrDenied
}

// AllowSuperuser decides what no organization decides for itself, such as to accept a CA key that may have leaked:
// nil for superusers and operators, otherwise [ErrDenied].
func AllowSuperuser(c Caller) error {
	if c.known() && c.mayEverything() {
		return nil
	}
	return ErrDenied
}

func (c Caller) mayEverything() bool { return c.Role == RoleSuperuser || c.Operator }

// known reports whether the caller is somebody. Without it, a zero caller would own every object whose creator is 0.
func (c Caller) known() bool { return c.Operator || c.UserID > 0 && c.Role.valid() }

func (r Role) valid() bool {
	switch r {
	case RoleSuperuser, RoleAdmin, RoleUser:
		return true
	}
	return false
}

func (a Action) valid() bool {
	switch a {
	case Read, CreateCA, CreateCert, RevokeCert, ExportPrivateKey, DeleteCA, DrillKey:
		return true
	}
	return false
}

func (c Capabilities) grant(a Action) bool {
	switch a {
	case CreateCA:
		return c.CreateCA
	case CreateCert:
		return c.CreateCert
	case RevokeCert:
		return c.RevokeCert
	case ExportPrivateKey:
		return c.ExportPrivateKey
	case DeleteCA:
		return c.DeleteCA
	}
	return false
}
