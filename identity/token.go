package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"signet/fault"
	"signet/policy"
)

const (
	maxAccess = 4096 // characters; the longest username, escaped, stays below
	tokenSize = 32   // octets of a refresh or bootstrap token
	jtiSize   = 16   // random octets of a jti
)

// claims are the claims of an access token: sub, id, role, exp, iat and jti. The role is for clients to show; the
// server reads it from the database.
type claims struct {
	jwt.RegisteredClaims
	UserID int64       `json:"id"`
	Role   policy.Role `json:"role"`
}

// issuer makes and reads tokens. It knows no database.
type issuer struct {
	secret          []byte
	access, refresh time.Duration
	now             func() time.Time
}

// grant is a pair of tokens about to be handed out, and what is stored of them.
type grant struct {
	tokens  Tokens
	stored  RefreshToken
	jti     string
	expires time.Time // of the access token
}

// grant makes tokens for u at its present epoch.
func (i issuer) grant(u User) (grant, error) {
	now := i.now()
	g := grant{
		jti:     epochPrefix(u) + random(jtiSize),
		expires: now.Add(i.access),
	}
	var err error
	g.tokens.Access, err = jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject:   u.Username,
			ExpiresAt: jwt.NewNumericDate(g.expires),
			IssuedAt:  jwt.NewNumericDate(now),
			ID:        g.jti,
		},
		UserID: u.ID,
		Role:   u.Role,
	}).SignedString(i.secret)
	if err != nil {
		return grant{}, fault.Wrap(fault.Internal, "The access token cannot be made", err)
	}
	g.tokens.Refresh = random(tokenSize)
	g.stored = RefreshToken{Hash: tokenHash(g.tokens.Refresh), UserID: u.ID, ExpiresAt: now.Add(i.refresh)}
	return g, nil
}

// parse checks form, signature, algorithm and expiry of an access token, and that no claim is missing. Its errors
// never quote the token.
func (i issuer) parse(access string) (claims, error) {
	// encoding/base64 skips line breaks: with them one signature would have many spellings.
	if len(access) > maxAccess || strings.ContainsAny(access, "\r\n") {
		return claims{}, jwt.ErrTokenMalformed
	}
	var c claims
	_, err := jwt.ParseWithClaims(access, &c,
		func(*jwt.Token) (any, error) { return i.secret, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(i.now),
	)
	for _, known := range []error{jwt.ErrTokenExpired, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenInvalidClaims} {
		if errors.Is(err, known) {
			return claims{}, known
		}
	}
	if err != nil {
		return claims{}, jwt.ErrTokenMalformed
	}
	if c.Subject == "" || c.UserID == 0 || c.Role == "" || c.IssuedAt == nil || c.ID == "" {
		return claims{}, jwt.ErrTokenRequiredClaimMissing
	}
	return c, nil
}

// authenticate checks an access token against the database now.
func (s *Service) authenticate(ctx context.Context, access string) (Session, error) {
	c, err := s.tokens.parse(access)
	if err != nil {
		return Session{}, badToken(err)
	}
	u, revoked, err := s.store.Session(ctx, c.UserID, c.ID)
	switch {
	case fault.Is(err, fault.NotFound):
		return Session{}, badToken(errors.New("the user is gone"))
	case err != nil:
		return Session{}, err
	case revoked:
		return Session{}, badToken(errors.New("the token is revoked"))
	case !u.Active:
		return Session{}, badToken(errors.New("the user is not active"))
	case u.Username != c.Subject:
		return Session{}, badToken(errors.New("the token names another user"))
	case !strings.HasPrefix(c.ID, epochPrefix(u)):
		return Session{}, badToken(errors.New("the sessions of the user were ended"))
	}
	return Session{User: u, JTI: c.ID, Expires: c.ExpiresAt.Time}, nil
}

func badToken(reason error) error {
	return fault.Wrap(fault.Unauthenticated, "Could not validate credentials", reason)
}

// epochPrefix begins the jti of every token of u's present epoch. Raising the epoch voids all earlier tokens
// without comparing clocks.
func epochPrefix(u User) string { return strconv.FormatInt(u.TokenEpoch, 10) + "." }

// random returns n random octets in base64url without padding.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand
	return base64.RawURLEncoding.EncodeToString(b)
}

// tokenHash is what is stored of a refresh or bootstrap token. The tokens are 256 random bits, so a plain hash
// does.
func tokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
