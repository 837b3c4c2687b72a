package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// runs runs a command with the settings of the site and returns what it printed.
func (s *site) runs(words ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "signet", append(words, s.args...)...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "SIGNET_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("signet %s: %v\n%s%s", strings.Join(words, " "), err, out, &stderr)
	}
	return string(out)
}

// keyring is the certificates whose private keys were handed out, by id.
type keyring struct {
	mu   sync.Mutex
	keys map[int64]string
}

func (k *keyring) copy() map[int64]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.keys)
}

// issueAndExport issues a certificate with a key, and exports that of another one. It uses no method that ends a test,
// because it runs beside it.
func (k *keyring) issueAndExport(c *client, authority int64) error {
	status, answer, err := c.do("POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority), object{
		"common_name": "www.example.com", "subject_dn": "CN=www.example.com", "certificate_type": "server", "key_type": "ec", "key_size": 256})
	var issued struct {
		ID  int64  `json:"id"`
		Key string `json:"private_key"`
	}
	if err != nil || status != http.StatusCreated || json.Unmarshal(answer, &issued) != nil || issued.Key == "" {
		return fmt.Errorf("issue: status %d, %v: %s", status, err, answer)
	}
	k.mu.Lock()
	k.keys[issued.ID] = issued.Key
	var other int64
	for other = range k.keys { // any
		break
	}
	k.mu.Unlock()
	return k.export(c, other)
}

func (k *keyring) export(c *client, id int64) error {
	status, answer, err := c.do("GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id), nil)
	var exported struct {
		Key string `json:"private_key"`
	}
	k.mu.Lock()
	want := k.keys[id]
	k.mu.Unlock()
	if err != nil || status != http.StatusOK || json.Unmarshal(answer, &exported) != nil || exported.Key != want {
		return fmt.Errorf("export %d: status %d, %v", id, status, err)
	}
	return nil
}

var destroyedKEK = regexp.MustCompile(`(?m)^destroyed key-encryption key [0-9a-f]{32}$`)

func TestTheKeyEncryptionKeyIsReplacedWhileTheServerWorks(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s, r := startServer(t, database)
			authority := r.createCA("Authority")
			ring := &keyring{keys: map[int64]string{}}
			for range 20 {
				if err := ring.issueAndExport(r.client, authority); err != nil {
					t.Fatal(err)
				}
			}
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for range 3 {
				clients.Go(func() {
					for failures := 0; failures < 3; {
						select {
						case <-stop:
							return
						case <-time.After(20 * time.Millisecond): // the machine has others to serve
						}
						if err := ring.issueAndExport(r.client, authority); err != nil {
							t.Error(err)
							failures++
						}
					}
				})
			}
			said := s.runs("token", "rotate-kek", "--destroy-old", "--settle", "3s")
			during := len(ring.copy())
			time.Sleep(200 * time.Millisecond)
			close(stop)
			clients.Wait()
			if len(destroyedKEK.FindAllString(said, -1)) != 1 || strings.Count(said, ", 0 are not\n") != 2 {
				t.Errorf("said:\n%s", said)
			}
			t.Logf("%d keys were issued during the rotation", during-20)

			// Nothing is left under an old key, which is gone.
			if said := s.runs("token", "rotate-kek", "--resume"); !strings.Contains(said, "sealed 0 keys anew") || strings.Contains(said, "kept") {
				t.Errorf("said:\n%s", said)
			}
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d:\n%s", code, r.stderr)
			}
			r = s.start("signet")
			r.login(rootName, rootPassword)
			for _, id := range slices.Sorted(maps.Keys(ring.copy())) {
				if err := ring.export(r.client, id); err != nil {
					t.Error(err)
				}
			}
			for action, want := range map[string]int{"kek_rotate": 2, "kek_destroy": 2} {
				if got := len(r.list("/api/v1/audit-logs/?action=" + action)); got != want {
					t.Errorf("%d events %s, want %d", got, action, want)
				}
			}
			if got := r.list("/api/v1/audit-logs/?action=key_reseal"); len(got) == 0 || got[0]["username"] != "signet token rotate-kek" {
				t.Errorf("events key_reseal: %v", got)
			}
			noSecretLeaked(t, r)
		})
	}
}
