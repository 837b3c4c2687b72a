package api

import (
	"net/http"

	"signet/api/wire"
	"signet/audit"
	"signet/identity"
)

func (s *server) login(w http.ResponseWriter, r *request) error {
	var form wire.LoginForm
	r.form(&form)
	if err := r.err(); err != nil {
		return err
	}
	if err := s.logins.take(r.Context(), audit.RequestFrom(r.Context()).RemoteAddr); err != nil {
		return err
	}
	tokens, err := s.identity.Login(r.Context(), form.Username, form.Password)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, session(tokens))
	return nil
}

func (s *server) refresh(w http.ResponseWriter, r *request) error {
	var body wire.RefreshRequest
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	tokens, err := s.identity.Refresh(r.Context(), body.RefreshToken)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, session(tokens))
	return nil
}

func (s *server) logout(w http.ResponseWriter, r *request) error {
	var body wire.RefreshRequest
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	if err := s.identity.Logout(r.Context(), r.session, body.RefreshToken); err != nil {
		return err
	}
	return noContent(w)
}

func (s *server) invalidateSessions(w http.ResponseWriter, r *request) error {
	if err := s.identity.Invalidate(r.Context(), r.session); err != nil {
		return err
	}
	return noContent(w)
}

func session(t identity.Tokens) wire.Tokens {
	return wire.Tokens{AccessToken: t.Access, RefreshToken: t.Refresh, TokenType: wire.TokensTokenTypeBearer}
}
