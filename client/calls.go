package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"signet/api/wire"
)

// Me returns the user who is logged in.
func (c *Client) Me(ctx context.Context) (u wire.User, err error) {
	request, err := NewGetMeRequest(c.base)
	return u, c.do(ctx, request, err, &u)
}

// CreateUser creates a user; the first one without a login, from the server's own machine.
func (c *Client) CreateUser(ctx context.Context, r wire.UserCreate) (u wire.User, err error) {
	request, err := NewCreateUserRequest(c.base, nil, r)
	return u, c.create(ctx, request, err, &u)
}

// CreateOrganization creates an organization.
func (c *Client) CreateOrganization(ctx context.Context, r wire.OrganizationCreate) (o wire.Organization, err error) {
	request, err := NewCreateOrganizationRequest(c.base, nil, r)
	return o, c.create(ctx, request, err, &o)
}

// CreateCA creates a certificate authority.
func (c *Client) CreateCA(ctx context.Context, r wire.CACreate) (authority wire.CA, err error) {
	request, err := NewCreateCARequest(c.base, nil, r)
	return authority, c.create(ctx, request, err, &authority)
}

// CA returns a certificate authority.
func (c *Client) CA(ctx context.Context, id int64) (authority wire.CA, err error) {
	request, err := NewGetCARequest(c.base, id)
	return authority, c.do(ctx, request, err, &authority)
}

// CAs yields every certificate authority that the caller may read, page by page.
func (c *Client) CAs(ctx context.Context, params wire.ListCAsParams) iter.Seq2[wire.CA, error] {
	return pages[wire.CA](ctx, c, func(cursor *string) (*http.Request, error) {
		if cursor != nil {
			params.Cursor, params.Skip = cursor, nil
		}
		return NewListCAsRequest(c.base, &params)
	})
}

// IssueCertificate issues a certificate, for a key pair that the server makes or for r.PublicKey.
func (c *Client) IssueCertificate(ctx context.Context, caID int64, r wire.CertificateCreate) (issued wire.CertificateWithKey, err error) {
	request, err := NewIssueCertificateRequest(c.base, &wire.IssueCertificateParams{CAID: caID}, r)
	return issued, c.create(ctx, request, err, &issued)
}

// SignCSR signs a certificate signing request.
func (c *Client) SignCSR(ctx context.Context, r wire.CSRSignRequest) (certificate wire.Certificate, err error) {
	request, err := NewSignCSRRequest(c.base, nil, r)
	return certificate, c.create(ctx, request, err, &certificate)
}

// Certificate returns a certificate.
func (c *Client) Certificate(ctx context.Context, id int64) (certificate wire.Certificate, err error) {
	request, err := NewGetCertificateRequest(c.base, id)
	return certificate, c.do(ctx, request, err, &certificate)
}

// PrivateKey returns a certificate with its private key, if one is kept.
func (c *Client) PrivateKey(ctx context.Context, id int64) (certificate wire.CertificateWithKey, err error) {
	request, err := NewGetCertificatePrivateKeyRequest(c.base, id)
	return certificate, c.do(ctx, request, err, &certificate)
}

// Certificates yields every certificate that the caller may read, page by page.
func (c *Client) Certificates(ctx context.Context, params wire.ListCertificatesParams) iter.Seq2[wire.Certificate, error] {
	return pages[wire.Certificate](ctx, c, func(cursor *string) (*http.Request, error) {
		if cursor != nil {
			params.Cursor, params.Skip = cursor, nil
		}
		return NewListCertificatesRequest(c.base, &params)
	})
}

// RevokeCertificate revokes a certificate, or puts it on hold.
func (c *Client) RevokeCertificate(ctx context.Context, id int64, r wire.RevokeRequest) (certificate wire.Certificate, err error) {
	request, err := NewRevokeCertificateRequest(c.base, id, r)
	return certificate, c.do(ctx, request, err, &certificate)
}

// ReleaseCertificate makes a certificate valid again that is on hold. The reason is for the audit trail.
func (c *Client) ReleaseCertificate(ctx context.Context, id int64, reason string) (certificate wire.Certificate, err error) {
	request, err := NewReleaseCertificateRequest(c.base, id, wire.ReleaseRequest{Reason: &reason})
	return certificate, c.do(ctx, request, err, &certificate)
}

// RevokeCA revokes an intermediate CA.
func (c *Client) RevokeCA(ctx context.Context, id int64, r wire.RevokeRequest) (authority wire.CA, err error) {
	request, err := NewRevokeCARequest(c.base, id, r)
	return authority, c.do(ctx, request, err, &authority)
}

// CRLs yields every list of a CA, latest number first, page by page.
func (c *Client) CRLs(ctx context.Context, caID int64) iter.Seq2[wire.CRL, error] {
	return pages[wire.CRL](ctx, c, func(cursor *string) (*http.Request, error) {
		return NewListCRLsRequest(c.base, caID, &wire.ListCRLsParams{Cursor: cursor})
	})
}

// RevocationPolicy returns how a CA publishes what it revoked.
func (c *Client) RevocationPolicy(ctx context.Context, caID int64) (p wire.RevocationPolicy, err error) {
	request, err := NewGetRevocationPolicyRequest(c.base, caID)
	return p, c.do(ctx, request, err, &p)
}

// SetRevocationPolicy replaces how a CA publishes what it revoked; nil fields follow the settings of the server.
func (c *Client) SetRevocationPolicy(ctx context.Context, caID int64, r wire.RevocationPolicyUpdate) (p wire.RevocationPolicy, err error) {
	request, err := NewSetRevocationPolicyRequest(c.base, caID, r)
	return p, c.do(ctx, request, err, &p)
}

// OCSPResponder returns what signs the OCSP answers about the certificates of a CA.
func (c *Client) OCSPResponder(ctx context.Context, caID int64) (r wire.OCSPResponder, err error) {
	request, err := NewGetOCSPResponderRequest(c.base, caID)
	return r, c.do(ctx, request, err, &r)
}

// pages yields the records of a list. next makes the request for the page after a cursor; nil is the first page. An
// error ends the sequence.
func pages[T any](ctx context.Context, c *Client, next func(cursor *string) (*http.Request, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var cursor *string
		for {
			var page []T
			request, err := next(cursor)
			response, err := c.send(ctx, request, err)
			if err == nil {
				err = read(response, &page)
			}
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, record := range page {
				if !yield(record, nil) {
					return
				}
			}
			if cursor = nextCursor(response.Header.Get("Link")); cursor == nil {
				return
			}
		}
	}
}

// nextCursor reads the cursor of the next page from a Link header; nil when there is none.
func nextCursor(link string) *string {
	target, parameters, _ := strings.Cut(link, ">")
	u, err := url.Parse(strings.TrimPrefix(target, "<"))
	if err != nil || !strings.Contains(parameters, `rel="next"`) || !u.Query().Has("cursor") {
		return nil
	}
	cursor := u.Query().Get("cursor")
	return &cursor
}
