package api

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/gorilla/mux"

	"signet/api/ocsp"
	"signet/audit"
	"signet/ca"
)

// maxAnswerAge is how long an OCSP answer may be taken from a cache: no longer than a CRL, for the same reason.
const maxAnswerAge = maxCRLAge

// ocspPOST answers an OCSP request in the body. Its type is not looked at: there is nothing else that it could be.
func (s *server) ocspPOST(w http.ResponseWriter, r *request) error {
	der, err := readOCSP(r.Request)
	if err != nil {
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("%w: %w", errSlowBody, err)
		case r.Context().Err() != nil:
			return err
		}
		return s.refuseMalformed(w, r, err)
	}
	return s.answerOCSP(w, r, der)
}

// readOCSP reads a body, of one octet more than a request may have at most.
func readOCSP(r *http.Request) ([]byte, error) {
	if r.ContentLength > ocsp.MaxRequest {
		return nil, ocsp.ErrMalformed
	}
	if r.ContentLength >= 0 {
		der := make([]byte, r.ContentLength)
		_, err := io.ReadFull(r.Body, der)
		return der, err
	}
	return io.ReadAll(io.LimitReader(r.Body, ocsp.MaxRequest+1))
}

// ocspGET answers an OCSP request in the path.
func (s *server) ocspGET(w http.ResponseWriter, r *request) error {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/ocsp/"), "/")
	der, err := ocsp.DecodeGET(rest)
	if err != nil {
		return s.refuseMalformed(w, r, err)
	}
	return s.answerOCSP(w, r, der)
}

func (s *server) answerOCSP(w http.ResponseWriter, r *request, der []byte) error {
	asked, err := ocsp.ParseRequest(der)
	if err != nil {
		return s.refuseMalformed(w, r, err)
	}
	asked.Client = clientOf(audit.RequestFrom(r.Context()).RemoteAddr).String()
	answer, err := s.ca.Status(r.Context(), mux.Vars(r.Request)["slug"], asked)
	if err != nil {
		return s.refuseOCSP(w, r, err)
	}
	s.offer(w, r.Request, document{
		contentType: ocsp.ResponseType, etag: answer.ETag, modified: answer.ThisUpdate, expires: answer.NextUpdate,
		fresh: earliest(answer.FreshUntil, answer.NextUpdate, s.now().Add(maxAnswerAge)),
		more:  ", no-transform, must-revalidate", // RFC 5019, section 6.2
	}.octets(answer.DER))
	return nil
}

// refuseOCSP answers as the protocol does when there is no answer (RFC 6960, section 4.2.1), with status 200 (appendix A.2).
// Only a CA that there is not has no responder to speak for it.
func (s *server) refuseOCSP(w http.ResponseWriter, r *request, err error) error {
	var refusal *ca.OCSPRefusal
	if !errors.As(err, &refusal) {
		return err
	}
	exchange := exchangeOf(r.Context())
	exchange.err, exchange.defect = err, refusal.Status == ocsp.InternalError
	if refusal.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(refusal.RetryAfter.Seconds()))))
	}
	s.offer(w, r.Request, document{contentType: ocsp.ResponseType}.octets(ocsp.Refusal(refusal.Status)))
	return nil
}

func (s *server) refuseMalformed(w http.ResponseWriter, r *request, err error) error {
	return s.refuseOCSP(w, r, &ca.OCSPRefusal{Status: ocsp.MalformedRequest, Err: err})
}
