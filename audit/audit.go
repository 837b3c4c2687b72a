// Package audit is the vocabulary of the audit trail: what happened, who did it, to which object.
//
// It only names things. A store appends an [Event] in the same transaction as the change the event records, so
// that neither exists without the other.
package audit

import (
	"context"
	"time"
)

// Action is what happened.
type Action string

// The actions. Clients filter by these strings: they are part of the API.
const (
	CACreate           Action = "ca_create"
	CAUpdate           Action = "ca_update"
	CADelete           Action = "ca_delete"
	CARevoke           Action = "ca_revoke"
	CASetPolicy        Action = "ca_set_revocation_policy"
	CAExportPrivateKey Action = "ca_export_private_key" // always a refusal
	CAReserve          Action = "ca_reserve"            // intent: a CA certificate is about to be signed
	CAAbandon          Action = "ca_abandon"            // the intent was never completed; the serial counts as revoked
	CAAdopt            Action = "ca_adopt"              // a key that was made elsewhere became a CA
	CALock             Action = "ca_lock"               // its key is known too little to certify; CRLs go on
	CAUnlock           Action = "ca_unlock"             //
	CAKeyDrill         Action = "ca_key_drill"          // somebody had the key attacked, or an attack showed another grade
	CAKeyEvidence      Action = "ca_key_evidence"       // evidence was signed for somebody
	CAKeyAccept        Action = "ca_key_accept"         // a lower grade of the key was accepted, or that was withdrawn
	CAKeyRefuse        Action = "ca_key_refuse"         // a key was refused for its grade and signed nothing
	CAKeyDestroy       Action = "ca_key_destroy"        // intent, then result
	CertCreate         Action = "cert_create"           //
	CertRevoke         Action = "cert_revoke"           //
	CertRelease        Action = "cert_release"          // a hold ended
	CertReserve        Action = "cert_reserve"          // intent: a certificate is about to be signed
	CertAbandon        Action = "cert_abandon"          // the intent was never completed; the serial counts as revoked
	ResponderReserve   Action = "responder_reserve"     // intent: the certificate of an OCSP responder is about to be signed
	ResponderCreate    Action = "responder_create"      //
	ResponderAbandon   Action = "responder_abandon"     // as cert_abandon, for the certificate of an OCSP responder
	CertExportPrivate  Action = "cert_export_private_key"
	CRLPublish         Action = "crl_publish"
	KeyDestroy         Action = "key_destroy" // of a key that is no CA's: intent, then result
	TokenPIN           Action = "token_pin"   // of a PKCS#11 token; announced before it is changed
	LoginSuccess       Action = "login_success"
	LoginFailure       Action = "login_failure"
	TokenRefresh       Action = "token_refresh"
	Logout             Action = "logout"
	SessionsInvalidate Action = "sessions_invalidate"
	UserCreate         Action = "user_create"
	UserUpdate         Action = "user_update"
	UserDelete         Action = "user_delete"
	OrgCreate          Action = "org_create"
	OrgUpdate          Action = "org_update"
	OrgDelete          Action = "org_delete"
	OrgAddUser         Action = "org_add_user"
	OrgRemoveUser      Action = "org_remove_user"
	KEKRotate          Action = "kek_rotate"  // before and after the next key-encryption key is made
	KEKDestroy         Action = "kek_destroy" // before and after an old one is destroyed
	KeyReseal          Action = "key_reseal"  // private keys were sealed anew
	Retention          Action = "retention"   // records whose time was over were removed; it stays for ever
)

// Actions is every action, in the order of the API's documentation.
var Actions = []Action{
	CACreate, CAUpdate, CADelete, CARevoke, CASetPolicy, CAExportPrivateKey, CAReserve, CAAbandon,
	CAAdopt, CALock, CAUnlock, CAKeyDrill, CAKeyEvidence, CAKeyAccept, CAKeyRefuse, CAKeyDestroy,
	CertCreate, CertRevoke, CertRelease, CertReserve, CertAbandon,
	ResponderReserve, ResponderCreate, ResponderAbandon, CertExportPrivate, CRLPublish, KeyDestroy, TokenPIN,
	LoginSuccess, LoginFailure, TokenRefresh, Logout, SessionsInvalidate,
	UserCreate, UserUpdate, UserDelete, OrgCreate, OrgUpdate, OrgDelete, OrgAddUser, OrgRemoveUser,
	KEKRotate, KEKDestroy, KeyReseal, Retention,
}

// The kinds of resource an event is about.
const (
	ResourceCA           = "ca"
	ResourceCertificate  = "certificate"
	ResourceUser         = "user"
	ResourceOrganization = "organization"
)

// Event is one entry of the trail, before it is stored.
type Event struct {
	Action         Action
	UserID         *int64 // nil: nobody was authenticated, or the server itself acted
	Username       string // the name at the time; "" when unknown
	OrganizationID *int64 // the organization of the object, which is whose admins may read the entry
	ResourceType   string // one of the Resource constants, or ""
	ResourceID     *int64 // nil on creation: the store fills in the id it assigns
	Detail         string // for people; never holds a secret
	RequestID      string
	RemoteAddr     string // client address without port, "" when the server itself acted
}

// Entry is a stored event.
type Entry struct {
	ID        int64
	CreatedAt time.Time
	Event
}

// Total is how many records a list has in all.
type Total struct {
	N       int64
	AtLeast bool // there may be more than N: counting them would cost too much
}

// Filter selects entries. Zero fields do not restrict.
type Filter struct {
	Action       Action
	UserID       *int64
	ResourceType string
	ResourceID   *int64
	Since, Until time.Time

	// Organization restricts to entries of one organization; OwnUserID, to entries of one user. They express
	// what the caller may see and hold in addition to the fields above.
	OrganizationID *int64
	OwnUserID      *int64

	Skip, Limit int
	BeforeID    int64 // cursor: only what comes after the entry with this id; 0 starts at the newest
}

// Request is where an event came from. It travels in the context of a request.
type Request struct {
	ID         string
	RemoteAddr string // client address without port
}

type requestKey struct{}

// WithRequest returns a context that carries r.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom returns the request that ctx carries, or the zero value when the server itself acts.
func RequestFrom(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}
