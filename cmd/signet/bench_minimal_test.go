package main

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // counts what the service keeps

	"signet/keystore"
)

const (
	minimalSessions = 8  // P-256 gains up to about eight, RSA saturates at as many as cores
	minimalGroup    = 64 // records in one transaction

	minimalURL = "http://127.0.0.1:12345" // in certificates, which have the extensions that Signet's have
)

// minimalMain is the minimal service, the yardstick of the benchmarks: it speaks as much of the API as they need. A CSR is
// checked, a certificate is made with the key in the token, one durable group commit keeps it, and that is all: no
// authentication, no policy, no lint, no intent, no audit.
func minimalMain() {
	if err := serveMinimal(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "signet-minimal:", err)
		os.Exit(1)
	}
}

// serveMinimal takes the settings of signet and serves until it is killed.
func serveMinimal(args []string) error {
	config, err := parseServe(args)
	if err != nil {
		return err
	}
	if err := makeDataDir(config.DataDir); err != nil {
		return err
	}
	cfg, err := config.tokenConfig(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	m := &minimal{queue: make(chan *record, minimalGroup)}
	if m.token, err = openRaw(cfg, minimalSessions); err != nil {
		return err
	}
	records, err := openRecorder(config.DatabaseURL)
	if err != nil {
		return err
	}
	go groupCommit(m.queue, records)
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return err
	}
	fmt.Println("signet: serving on http://" + listener.Addr().String())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/cas/", m.createCA)
	mux.HandleFunc("POST /api/v1/certificates/sign-csr", m.sign)
	return http.Serve(listener, mux)
}

type minimal struct {
	token *rawToken
	queue chan *record

	mu  sync.RWMutex
	cas []minimalCA // the first has the id 1
}

type minimalCA struct {
	certificate *x509.Certificate
	key         *rawKey
}

func (m *minimal) createCA(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name string           `json:"name"`
		Type keystore.KeyType `json:"key_type"`
		Size int              `json:"key_size"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	key, err := m.token.generate(caKey{body.Name, body.Type, body.Size})
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: body.Name}, NotBefore: time.Now(), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	m.mu.Lock()
	m.cas = append(m.cas, minimalCA{certificate, key})
	made := len(m.cas)
	m.mu.Unlock()
	writeCreated(w, object{"id": made, "certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))})
}

// signed is the answer to a CSR.
type signed struct {
	Serial      string `json:"serial_number"`
	Certificate string `json:"certificate"`
}

func (m *minimal) sign(w http.ResponseWriter, r *http.Request) {
	var body struct {
		CA  int    `json:"ca_id"`
		CSR string `json:"csr"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	request, err := parseRequest(body.CSR)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	m.mu.RLock()
	known := body.CA > 0 && body.CA <= len(m.cas)
	var issuer minimalCA
	if known {
		issuer = m.cas[body.CA-1]
	}
	m.mu.RUnlock()
	if !known {
		refuse(w, http.StatusNotFound, errors.New("no such CA"))
		return
	}
	var octets [16]byte
	rand.Read(octets[:])
	serial := new(big.Int).SetBytes(octets[:])
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: request.Subject, DNSNames: []string{request.Subject.CommonName}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		CRLDistributionPoints: []string{minimalURL + "/crl/demo-1"}, IssuingCertificateURL: []string{minimalURL + "/ca/demo-1.crt"},
		OCSPServer: []string{minimalURL + "/ocsp/demo-1"},
	}, issuer.certificate, request.PublicKey, issuer.key)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer := signed{hex.EncodeToString(octets[:]), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	kept := &record{issuer: int64(body.CA), serial: answer.Serial, name: request.Subject.CommonName, der: der, done: make(chan error, 1)}
	m.queue <- kept
	if err := <-kept.done; err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	writeCreated(w, answer)
}

// parseRequest reads a CSR in PEM and checks its signature.
func parseRequest(text string) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the CSR is not PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return request, request.CheckSignature()
}

func refuse(w http.ResponseWriter, status int, err error) { http.Error(w, err.Error(), status) }

func writeCreated(w http.ResponseWriter, answer any) {
	data, err := json.Marshal(answer)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(data) // a client that hung up does not read it
}

// What the benchmarks compare with must do what it says: an answer is a good certificate, and it is kept.
func TestTheMinimalServiceKeepsWhatItSigns(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, database)
			r := s.start("signet-minimal")
			made := 0
			for _, k := range caKeys {
				done := newTarget(t, r, 0, k).turn(t, 4, 200*time.Millisecond)
				if done.failed > 0 {
					t.Errorf("%s: %d of %d requests failed, such as: %v", k.Name, done.failed, done.failed+done.made, done.firstOfFailure)
				}
				made += done.made
			}
			r.stop(syscall.SIGKILL)
			if kept := countRecords(t, s.url); kept != made {
				t.Errorf("%d certificates are kept, want the %d that were answered", kept, made)
			}
		})
	}
}

func countRecords(t *testing.T, url string) (n int) {
	t.Helper()
	driver, source := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, source = "sqlite3", "file:"+path
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT count(*) FROM records").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
