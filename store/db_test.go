package store_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/identity"
	"signet/policy"
	"signet/store"
)

// draft is a certificate to be reserved.
func draft(issuer int64) ca.Certificate {
	serial := make([]byte, 16)
	rand.Read(serial)
	now := time.Now()
	return ca.Certificate{IssuerID: issuer, CommonName: "host.example", SubjectDN: "CN=host.example", Type: policy.Server,
		KeyType: policy.EC, KeySize: 256, ValidDays: 1, Serial: hex.EncodeToString(serial), TBS: []byte("to be signed"),
		NotBefore: now, NotAfter: now.AddDate(0, 0, 1)}
}

var reserved = audit.Event{Action: audit.CertReserve, ResourceType: audit.ResourceCertificate}

func TestOpenRefusesWhatIsNoDatabase(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for url, want := range map[string]fault.Code{
		"":                                      fault.Internal,
		"mysql://host/db":                       fault.Internal,
		"sqlite:":                               fault.Internal,
		"sqlite::memory:":                       fault.Internal,
		"sqlite:" + folder:                      fault.Internal,
		"postgres://u:pass-word@127.0.0.1:x/db": fault.Internal,
		"postgres://u:pass-word@127.0.0.1:1/db": fault.Unavailable,
		"postgres:///db?host=" + folder + "/none": fault.Unavailable,
	} {
		db, err := store.Open(context.Background(), store.Config{URL: url})
		if err == nil || fault.CodeOf(err) != want || db != nil {
			t.Errorf("%q: %v (%v), want %v", url, err, fault.CodeOf(err), want)
		}
		if err != nil && strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
}

func TestSQLiteFilesAreForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "100% ?#odd name")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	url := "sqlite:" + filepath.Join(folder, "signet.db")
	if err := migrate(url); err != nil {
		t.Fatal(err)
	}
	validCA(t, open(t, store.Config{URL: url}))
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 3 {
		t.Fatalf("files are %v, %v", files, err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v", file.Name(), info.Mode(), err)
		}
	}
}

func TestSQLiteIsDurableAndChecksForeignKeys(t *testing.T) {
	t.Parallel()
	db := open(t, store.Config{URL: sqliteURL(t)})
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		if got := db.Pragma(t, pragma); got != want {
			t.Errorf("%s is %s, want %s", pragma, got, want)
		}
	}
}

func TestTwoProcessesShareADatabase(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := url(t)
			one, two := open(t, store.Config{URL: u}), open(t, store.Config{URL: u})
			issuer := validCA(t, one)
			c := draft(issuer)
			var wg sync.WaitGroup
			var mu sync.Mutex
			won := 0
			for i := range 16 {
				wg.Go(func() {
					db := []*store.DB{one, two}[i%2]
					if _, err := db.Reserve(context.Background(), draft(issuer), reserved); err != nil {
						t.Error(err)
					}
					_, err := db.Reserve(context.Background(), c, reserved)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						won++
					} else if !fault.Is(err, fault.Conflict) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won != 1 {
				t.Errorf("%d of 16 reservations of one serial succeeded", won)
			}
		})
	}
}

func TestAnItemTheDatabaseRejectsFailsAlone(t *testing.T) {
	t.Parallel()
	db := open(t, store.Config{URL: databases["PostgreSQL"](t)})
	issuer := validCA(t, db)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			c, want := draft(issuer), fault.Code("")
			if i%8 == 0 {
				c.CommonName, want = "nul \x00 byte", fault.Invalid
			}
			_, err := db.Reserve(context.Background(), c, reserved)
			if want == "" && err != nil || want != "" && !fault.Is(err, want) {
				t.Errorf("error is %v, want %q", err, want)
			}
		})
	}
	wg.Wait()
}

func TestAFailingEventUndoesItsChange(t *testing.T) {
	t.Parallel()
	db := open(t, store.Config{URL: databases["PostgreSQL"](t)})
	ctx, issuer := context.Background(), validCA(t, db)
	id, err := db.Reserve(ctx, draft(issuer), reserved)
	if err != nil {
		t.Fatal(err)
	}
	bad := audit.Event{Action: audit.CertCreate, Detail: "nul \x00 byte"}
	if _, err := db.Complete(ctx, id, []byte("certificate"), nil, bad); !fault.Is(err, fault.Invalid) {
		t.Errorf("error is %v", err)
	}
	if _, err := db.Certificate(ctx, id); !fault.Is(err, fault.NotFound) {
		t.Errorf("the certificate was completed without its event: %v", err)
	}
	if err := db.DeleteCA(ctx, issuer, time.Now(), bad); !fault.Is(err, fault.Invalid) {
		t.Errorf("error is %v", err)
	}
	if _, err := db.CA(ctx, issuer); err != nil {
		t.Errorf("the CA was deleted without its event: %v", err)
	}
}

func TestOrganizationWithACAIsNotDeleted(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		o, err := db.CreateOrganization(ctx, identity.Organization{Name: "Example"}, audit.Event{Action: audit.OrgCreate})
		if err != nil {
			t.Fatal(err)
		}
		c, err := db.CreateCA(ctx, ca.CA{Name: "Root", OrganizationID: &o.ID, KeyID: []byte("key")}, audit.Event{Action: audit.CAReserve})
		if err != nil {
			t.Fatal(err)
		}
		err = db.DeleteOrganization(ctx, o.ID, audit.Event{Action: audit.OrgDelete})
		if !fault.Is(err, fault.Invalid) || err.Error() != "Organization has certificate authorities" {
			t.Errorf("error is %v", err)
		}
		if _, err := db.Organization(ctx, o.ID); err != nil {
			t.Errorf("it is gone all the same: %v", err)
		}
		c.PublicKey, c.Serial = []byte("public key"), "5a"
		if err := db.ReserveCA(ctx, c, audit.Event{Action: audit.CAReserve}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.CompleteCA(ctx, c.ID, []byte("certificate"), audit.Event{Action: audit.CACreate}); err != nil {
			t.Fatal(err)
		}
		if err := db.DeleteCA(ctx, c.ID, time.Now(), audit.Event{Action: audit.CADelete}); err != nil {
			t.Fatal(err)
		}
		if err := db.DeleteOrganization(ctx, o.ID, audit.Event{Action: audit.OrgDelete}); err != nil {
			t.Errorf("its last CA is deleted: %v", err)
		}
	})
}

func TestADatabaseThatIsAwayIsUnavailable(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		issuer := validCA(t, db)
		late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
		defer cancel()
		if err := db.Record(late, reserved); !fault.Is(err, fault.Unavailable) {
			t.Errorf("after the deadline: %v", err)
		}
		if _, err := db.Reserve(late, draft(issuer), reserved); !fault.Is(err, fault.Unavailable) {
			t.Errorf("after the deadline: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Reserve(context.Background(), draft(issuer), reserved); !fault.Is(err, fault.Unavailable) {
			t.Errorf("after Close: %v", err)
		}
		if _, err := db.CA(context.Background(), issuer); !fault.Is(err, fault.Unavailable) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestClosingAnswersEveryCaller(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := url(t)
			db := open(t, store.Config{URL: u})
			issuer := validCA(t, db)
			var wg sync.WaitGroup
			var mu sync.Mutex
			var answered []int64
			for range 16 {
				wg.Go(func() {
					for {
						id, err := db.Reserve(context.Background(), draft(issuer), reserved)
						if err != nil {
							if !fault.Is(err, fault.Unavailable) {
								t.Error(err)
							}
							return
						}
						mu.Lock()
						answered = append(answered, id)
						mu.Unlock()
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			kept, err := open(t, store.Config{URL: u}).Abandon(context.Background(), time.Now().Add(time.Hour), time.Now())
			if err != nil || kept < len(answered) {
				t.Errorf("%d reservations were answered, %d kept, %v", len(answered), kept, err)
			}
		})
	}
}

func TestObserveSeesEveryOperation(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			seen := map[string][]error{}
			db := open(t, store.Config{URL: url(t), Observe: func(op string, took time.Duration, err error) {
				mu.Lock()
				defer mu.Unlock()
				if took < 0 {
					t.Errorf("%s took %v", op, took)
				}
				seen[op] = append(seen[op], err)
			}})
			issuer := validCA(t, db)
			if _, err := db.Reserve(context.Background(), draft(issuer), reserved); err != nil {
				t.Fatal(err)
			}
			if _, err := db.CA(context.Background(), 99); err == nil {
				t.Fatal("there is no CA 99")
			}
			mu.Lock()
			defer mu.Unlock()
			for _, op := range []string{"CreateCA", "ReserveCA", "CompleteCA", "Reserve", "Commit", "CA"} {
				if len(seen[op]) != 1 {
					t.Errorf("%s was seen %d times", op, len(seen[op]))
				}
			}
			if !fault.Is(errors.Join(seen["CA"]...), fault.NotFound) {
				t.Errorf("CA ended with %v", seen["CA"])
			}
		})
	}
}
