package main

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"signet/ca"
	"signet/evidence"
	"signet/fault"
)

type caAdoptCommand struct {
	ID           keyID  `name:"id" required:"" placeholder:"HEX" help:"CKA_ID of the key, in hexadecimal as signet key list shows it."`
	Token        string `name:"token" placeholder:"NAME" help:"Name of the token in the settings. Default: the token named default."`
	Name         string `name:"name" required:"" placeholder:"NAME" help:"Name of the CA."`
	Certificate  string `name:"certificate" xor:"certificate" placeholder:"FILE" help:"The certificate that the CA has, in PEM or DER: self-signed, or issued by a CA here."`
	SubjectDN    string `name:"subject-dn" xor:"certificate" placeholder:"DN" help:"Subject of a new self-signed certificate, as in CN=Example Root,O=Example."`
	ValidDays    int    `name:"valid-days" default:"3650" placeholder:"N" help:"Days that the new certificate is valid."`
	Description  string `name:"description" placeholder:"TEXT" help:"Description of the CA."`
	Organization int64  `name:"organization-id" placeholder:"ID" help:"The organization that the CA is going to belong to; a CA below another one belongs to that one's."`
	Accept       string `name:"accept-key-grade" enum:",imported,asserted" default:"" placeholder:"GRADE" help:"imported or asserted: accept a key of this grade. It is in the evidence and in the audit trail. A key that the token says can leave it is never accepted."`
	Reason       string `name:"reason" placeholder:"TEXT" help:"Why the lower grade is accepted."`

	outputFormat
	Config
}

// adoptedCA is a CA with what is known of its key.
type adoptedCA struct {
	ID          int64                `json:"id"`
	Name        string               `json:"name"`
	SubjectDN   string               `json:"subject_dn"`
	ParentID    *int64               `json:"parent_id"`
	Serial      string               `json:"serial_number"`
	NotAfter    time.Time            `json:"not_after"`
	Token       string               `json:"token"`
	KeyID       string               `json:"key_id"`
	Grade       evidence.Grade       `json:"grade"`
	Acceptance  *evidence.Acceptance `json:"acceptance"`
	Locked      string               `json:"locked"`
	Certificate string               `json:"certificate"` // PEM
}

func (d *desk) describe(c ca.CA) adoptedCA {
	a := adoptedCA{
		ID: c.ID, Name: c.Name, SubjectDN: c.SubjectDN, ParentID: c.ParentID, Serial: c.Serial, NotAfter: c.NotAfter.UTC(),
		Token: d.authority.TokenOf(c), KeyID: hex.EncodeToString(c.KeyID), Grade: c.Proof.Grade, Locked: c.Proof.Locked,
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate})),
	}
	if c.Proof.Accepted.Grade != "" {
		a.Acceptance = &c.Proof.Accepted
	}
	return a
}

func (a adoptedCA) text(w io.Writer) error {
	accepted := ""
	if a.Acceptance != nil {
		accepted = fmt.Sprintf(" (%s is accepted: %s)", a.Acceptance.Grade, oneLine(a.Acceptance.Reason))
	}
	_, err := fmt.Fprintf(w, "CA %d %q: subject %s, serial %s, valid until %s\nkey %s in token %q: grade %s%s\n",
		a.ID, a.Name, a.SubjectDN, a.Serial, a.NotAfter.Format(time.RFC3339), a.KeyID, a.Token, or(string(a.Grade), "not drilled yet"), accepted)
	if err == nil && a.Locked != "" {
		_, err = fmt.Fprintf(w, "the CA is LOCKED: %s\n", oneLine(a.Locked))
	}
	return err
}

// Run adopts the key, after looking whose it is.
func (c *caAdoptCommand) Run(in *invocation) (err error) {
	request, err := c.request()
	if err != nil {
		return err
	}
	d, err := c.openDesk(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if id := request.OrganizationID; id != nil {
		if _, err := d.db.Organization(in.ctx, *id); err != nil {
			return fmt.Errorf("find organization %d: %w", *id, err)
		}
	}
	found, err := d.find(in.ctx, c.Token, c.ID)
	if err != nil {
		return err
	}
	if found.Use != useUnknown && found.Use != useLeftover {
		return fmt.Errorf("key %x cannot be adopted: %s", []byte(c.ID), found.words())
	}
	request.Token = found.Token
	adopted, err := d.authority.Adopt(in.ctx, byOperator, request)
	if err != nil {
		return errors.Join(fmt.Errorf("adopt key %x: %w", []byte(c.ID), err), d.advice(in.ctx, request, err))
	}
	shown := d.describe(adopted)
	return c.write(in.stdout, shown, shown.text)
}

func (c *caAdoptCommand) request() (ca.AdoptRequest, error) {
	r := ca.AdoptRequest{KeyID: c.ID, Name: c.Name, SubjectDN: c.SubjectDN, ValidDays: c.ValidDays, AcceptGrade: evidence.Grade(c.Accept), Reason: c.Reason}
	switch {
	case (c.Certificate == "") == (c.SubjectDN == ""):
		return r, usagef("one of --certificate and --subject-dn is needed")
	case (c.Accept == "") != (c.Reason == ""):
		return r, usagef("--accept-key-grade and --reason go together")
	}
	if c.Description != "" {
		r.Description = &c.Description
	}
	if c.Organization != 0 {
		r.OrganizationID = &c.Organization
	}
	if c.Certificate == "" {
		return r, nil
	}
	data, err := os.ReadFile(c.Certificate)
	if err != nil {
		return r, usagef("--certificate: %w", err)
	}
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE" {
			return r, usagef("--certificate: %s holds no certificate", c.Certificate)
		}
		if next, _ := pem.Decode(rest); next != nil {
			return r, usagef("--certificate: %s holds more than one certificate", c.Certificate)
		}
		data = block.Bytes
	}
	r.CertificateDER = data
	return r, nil
}

// advice says what to do about a key that was refused for its grade.
func (d *desk) advice(ctx context.Context, r ca.AdoptRequest, refusal error) error {
	if !fault.Is(refusal, fault.Conflict) {
		return nil
	}
	key, err := d.keys.Inspect(ctx, ca.KeyRef{Token: r.Token, ID: r.KeyID})
	if err != nil {
		return nil // the refusal itself says enough
	}
	switch grade, _ := evidence.GradeOf(key.Attributes, evidence.Drill{}); {
	case grade == evidence.Exportable:
		return errors.New("no option changes that: make a key in the token instead (POST /api/v1/cas/)")
	case r.AcceptGrade == "" || !grade.AtLeast(r.AcceptGrade):
		return fmt.Errorf("if that is good enough, add: --accept-key-grade %s --reason TEXT", grade)
	}
	return nil
}

type caAcceptGradeCommand struct {
	CA     int64  `name:"ca" required:"" placeholder:"ID" help:"The CA."`
	Grade  string `name:"grade" required:"" enum:"imported,asserted,drilled" placeholder:"GRADE" help:"The lowest grade with which the key may sign: imported, asserted, or drilled, which is the rule."`
	Reason string `name:"reason" required:"" placeholder:"TEXT" help:"Why. It is in the evidence and in the audit trail."`

	outputFormat
	Config
}

// Run accepts the grade, or withdraws an acceptance.
func (c *caAcceptGradeCommand) Run(in *invocation) (err error) {
	d, err := c.openDesk(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	changed, err := d.authority.AcceptKeyGrade(in.ctx, byOperator, c.CA, evidence.Grade(c.Grade), c.Reason)
	if err != nil {
		return err
	}
	shown := d.describe(changed)
	return c.write(in.stdout, shown, shown.text)
}
