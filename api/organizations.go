package api

import (
	"context"
	"net/http"

	"signet/api/wire"
	"signet/identity"
)

func (s *server) createOrganization(w http.ResponseWriter, r *request) error {
	var body wire.OrganizationCreate
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	o, err := once(s, w, r,
		func(ctx context.Context) (identity.Organization, error) {
			return s.identity.CreateOrganization(ctx, r.caller(), body.Name, body.Description)
		},
		func(ctx context.Context, id int64) (identity.Organization, error) {
			return s.identity.Founded(ctx, r.caller(), id)
		})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, organizationOf(o))
	return nil
}

func (s *server) listOrganizations(w http.ResponseWriter, r *request) error {
	var query wire.ListOrganizationsParams
	r.query(&query)
	p := r.page(query.Skip, query.Limit, query.Cursor)
	if err := r.err(); err != nil {
		return err
	}
	all, total, err := s.identity.Organizations(r.Context(), r.caller(), p.people())
	if err != nil {
		return err
	}
	return writePage(w, r, p, all, exactly(total), func(o identity.Organization) int64 { return o.ID }, organizationOf)
}

func (s *server) getOrganization(w http.ResponseWriter, r *request) error {
	id := r.id("organization_id")
	if err := r.err(); err != nil {
		return err
	}
	o, err := s.identity.Organization(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, organizationOf(o))
	return nil
}

func (s *server) updateOrganization(w http.ResponseWriter, r *request) error {
	id := r.id("organization_id")
	var body wire.OrganizationUpdate
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	o, err := s.identity.UpdateOrganization(r.Context(), r.caller(), id, body.Name, body.Description)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, organizationOf(o))
	return nil
}

func (s *server) deleteOrganization(w http.ResponseWriter, r *request) error {
	id := r.id("organization_id")
	if err := r.err(); err != nil {
		return err
	}
	if err := s.identity.DeleteOrganization(r.Context(), r.caller(), id); err != nil {
		return err
	}
	return noContent(w)
}

func (s *server) listMembers(w http.ResponseWriter, r *request) error {
	id := r.id("organization_id")
	var query wire.ListMembersParams
	r.query(&query)
	p := r.page(query.Skip, query.Limit, query.Cursor)
	if err := r.err(); err != nil {
		return err
	}
	users, total, err := s.identity.Members(r.Context(), r.caller(), id, p.people())
	if err != nil {
		return err
	}
	return writePage(w, r, p, users, exactly(total), userID, userOf)
}

func (s *server) addMember(w http.ResponseWriter, r *request) error {
	organization, user := r.id("organization_id"), r.id("user_id")
	if err := r.err(); err != nil {
		return err
	}
	u, err := s.identity.AddMember(r.Context(), r.caller(), organization, user)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, userOf(u))
	return nil
}

func (s *server) removeMember(w http.ResponseWriter, r *request) error {
	organization, user := r.id("organization_id"), r.id("user_id")
	if err := r.err(); err != nil {
		return err
	}
	u, err := s.identity.RemoveMember(r.Context(), r.caller(), organization, user)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, userOf(u))
	return nil
}

func organizationOf(o identity.Organization) wire.Organization {
	return wire.Organization{ID: o.ID, Name: o.Name, Description: o.Description, CreatedAt: o.CreatedAt.UTC(), UpdatedAt: o.UpdatedAt.UTC()}
}
