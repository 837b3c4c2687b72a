package client

import (
	"context"

	"signet/api/wire"
)

// DrillKey has the key of a certificate authority attacked now.
func (c *Client) DrillKey(ctx context.Context, id int64) (d wire.KeyDrill, err error) {
	request, err := NewDrillKeyRequest(c.base, id)
	return d, c.do(ctx, request, err, &d)
}

// KeyDrills lists the last drills of the key of a certificate authority, newest first.
func (c *Client) KeyDrills(ctx context.Context, id int64) (drills []wire.KeyDrill, err error) {
	request, err := NewListKeyDrillsRequest(c.base, id)
	return drills, c.do(ctx, request, err, &drills)
}

// AcceptKeyGrade accepts a lower grade of the key of a certificate authority, or withdraws that.
func (c *Client) AcceptKeyGrade(ctx context.Context, id int64, r wire.KeyGradeAccept) (authority wire.CA, err error) {
	request, err := NewAcceptKeyGradeRequest(c.base, id, r)
	return authority, c.do(ctx, request, err, &authority)
}
