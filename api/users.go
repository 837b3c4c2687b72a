package api

import (
	"context"
	"net/http"

	"signet/api/wire"
	"signet/identity"
	"signet/policy"
)

// createUser is open: whether nobody may create a user is for package identity to say.
func (s *server) createUser(w http.ResponseWriter, r *request) error {
	var body wire.UserCreate
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	var caller *policy.Caller
	if r.session.User.ID != 0 {
		c := r.caller()
		caller = &c
	}
	wanted := identity.Registration{
		Username: body.Username, Email: body.Email, Password: body.Password,
		Role: policy.Role(or(body.Role, "")), OrganizationID: body.OrganizationID,
		Capabilities: policy.Capabilities{
			CreateCA: or(body.CanCreateCA, false), CreateCert: or(body.CanCreateCert, false), RevokeCert: or(body.CanRevokeCert, false),
			ExportPrivateKey: or(body.CanExportPrivateKey, false), DeleteCA: or(body.CanDeleteCA, false),
		},
		Loopback: isLocal(r.Request), BootstrapToken: r.Header.Get("X-Bootstrap-Token"),
	}
	user, err := once(s, w, r,
		func(ctx context.Context) (identity.User, error) { return s.identity.Register(ctx, caller, wanted) },
		func(ctx context.Context, id int64) (identity.User, error) {
			return s.identity.Registered(ctx, *caller, id)
		})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, userOf(user))
	return nil
}

func (s *server) listUsers(w http.ResponseWriter, r *request) error {
	var query wire.ListUsersParams
	r.query(&query)
	p := r.page(query.Skip, query.Limit, query.Cursor)
	if err := r.err(); err != nil {
		return err
	}
	users, total, err := s.identity.Users(r.Context(), r.caller(), p.people())
	if err != nil {
		return err
	}
	return writePage(w, r, p, users, exactly(total), userID, userOf)
}

func (s *server) getMe(w http.ResponseWriter, r *request) error {
	writeJSON(w, http.StatusOK, userOf(r.session.User))
	return nil
}

func (s *server) getUser(w http.ResponseWriter, r *request) error {
	id := r.id("user_id")
	if err := r.err(); err != nil {
		return err
	}
	user, err := s.identity.User(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, userOf(user))
	return nil
}

func (s *server) updateUser(w http.ResponseWriter, r *request) error {
	id := r.id("user_id")
	var body wire.UserPatch
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	patch := identity.UserPatch{
		Email: body.Email, Password: body.Password, Role: (*policy.Role)(body.Role), Active: body.IsActive,
		CreateCA: body.CanCreateCA, CreateCert: body.CanCreateCert, RevokeCert: body.CanRevokeCert,
		ExportPrivateKey: body.CanExportPrivateKey, DeleteCA: body.CanDeleteCA,
		OrganizationID: body.OrganizationID,
	}
	user, err := s.identity.UpdateUser(r.Context(), r.caller(), id, patch)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, userOf(user))
	return nil
}

func (s *server) deleteUser(w http.ResponseWriter, r *request) error {
	id := r.id("user_id")
	if err := r.err(); err != nil {
		return err
	}
	if err := s.identity.DeleteUser(r.Context(), r.caller(), id); err != nil {
		return err
	}
	return noContent(w)
}

// people is the page as package identity takes it.
func (p page) people() identity.Page {
	return identity.Page{After: p.cursor, Skip: p.skip, Limit: p.limit + 1}
}

func userID(u identity.User) int64 { return u.ID }

func userOf(u identity.User) wire.User {
	return wire.User{
		ID: u.ID, Username: u.Username, Email: u.Email, Role: wire.Role(u.Role), IsActive: u.Active,
		CanCreateCA: u.Capabilities.CreateCA, CanCreateCert: u.Capabilities.CreateCert, CanRevokeCert: u.Capabilities.RevokeCert,
		CanExportPrivateKey: u.Capabilities.ExportPrivateKey, CanDeleteCA: u.Capabilities.DeleteCA,
		OrganizationID: u.OrganizationID, CreatedAt: u.CreatedAt.UTC(), UpdatedAt: u.UpdatedAt.UTC(),
	}
}
