package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// Info names the token and the library through which it is reached: CK_TOKEN_INFO and CK_INFO (PKCS#11 2.40, section
// 3.2 and 3.1), and the file of the library. Versions are "major.minor".
type Info struct {
	Manufacturer, Model, Serial, Label, Firmware string
	Library                                      string // description and version in one
	Sessions                                     int    // of ours, open now

	Slot       uint
	Flags      []string // of the token: "login-required", "user-pin-locked", …
	Mechanisms int      // how many the token lists

	ModulePath         string // as configured
	ModuleSHA256       string // of the file, lower-case hex; empty when the library is not where its path says
	LibraryDescription string
	LibraryVersion     string
	Cryptoki           string // version of the standard that the library speaks
}

// Info reads the description of the token and of its library. Errors: [ErrUnavailable].
func (t *Token) Info(ctx context.Context) (Info, error) {
	info, err := call(ctx, t, operation[Info]{name: "info", run: t.info})
	if err != nil {
		return Info{}, err
	}
	info.ModuleSHA256 = moduleSums.of(info.ModulePath)
	return info, nil
}

func (t *Token) info(s *session) (Info, error) {
	token, err := s.GetTokenInfo(t.slot.id)
	if err != nil {
		return Info{}, err
	}
	library, err := s.GetInfo()
	if err != nil {
		return Info{}, err
	}
	mechanisms, err := s.GetMechanismList(t.slot.id)
	if err != nil {
		return Info{}, err
	}
	return Info{
		Manufacturer: token.ManufacturerID, Model: token.Model, Serial: token.SerialNumber, Label: token.Label,
		Firmware: version(token.FirmwareVersion),
		Library:  library.LibraryDescription + " " + version(library.LibraryVersion),
		Sessions: t.pool.size(),

		Slot: t.slot.id, Flags: tokenFlags(token.Flags), Mechanisms: len(mechanisms),

		ModulePath:         t.module.path,
		LibraryDescription: library.LibraryDescription,
		LibraryVersion:     version(library.LibraryVersion),
		Cryptoki:           version(library.CryptokiVersion),
	}, nil
}

func version(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// flagNames are the token flags that mean something to people.
var flagNames = []struct {
	flag uint
	name string
}{
	{pkcs11.CKF_TOKEN_INITIALIZED, "initialized"},
	{pkcs11.CKF_LOGIN_REQUIRED, "login-required"},
	{pkcs11.CKF_WRITE_PROTECTED, "write-protected"},
	{pkcs11.CKF_RNG, "random-number-generator"},
	{pkcs11.CKF_CLOCK_ON_TOKEN, "clock"},
	{pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH, "protected-authentication-path"},
	{pkcs11.CKF_RESTORE_KEY_NOT_NEEDED, "restore-key-not-needed"},
	{pkcs11.CKF_USER_PIN_INITIALIZED, "user-pin-initialized"},
	{pkcs11.CKF_USER_PIN_COUNT_LOW, "user-pin-count-low"},
	{pkcs11.CKF_USER_PIN_FINAL_TRY, "user-pin-final-try"},
	{pkcs11.CKF_USER_PIN_LOCKED, "user-pin-locked"},
	{pkcs11.CKF_USER_PIN_TO_BE_CHANGED, "user-pin-to-be-changed"},
	{pkcs11.CKF_SO_PIN_COUNT_LOW, "so-pin-count-low"},
	{pkcs11.CKF_SO_PIN_FINAL_TRY, "so-pin-final-try"},
	{pkcs11.CKF_SO_PIN_LOCKED, "so-pin-locked"},
	{pkcs11.CKF_SO_PIN_TO_BE_CHANGED, "so-pin-to-be-changed"},
	{pkcs11.CKF_ERROR_STATE, "error-state"},
}

func tokenFlags(flags uint) []string {
	set := []string{}
	for _, f := range flagNames {
		if flags&f.flag != 0 {
			set = append(set, f.name)
		}
	}
	return set
}

// moduleSums remembers the SHA-256 of library files, by path, for as long as size and modification time stay.
var moduleSums fileSums

type fileSums struct {
	mu    sync.Mutex
	known map[string]fileSum
}

type fileSum struct {
	size     int64
	modified time.Time
	sum      string
}

// of returns the SHA-256 of the file in hex, or nothing for a file that cannot be read: the dynamic linker finds a
// library by name in places of its own. It is the file as it is now, which a library loaded earlier may not be.
func (f *fileSums) of(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil || !stat.Mode().IsRegular() {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if k, ok := f.known[path]; ok && k.size == stat.Size() && k.modified.Equal(stat.ModTime()) {
		return k.sum
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return ""
	}
	if f.known == nil {
		f.known = map[string]fileSum{}
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	f.known[path] = fileSum{stat.Size(), stat.ModTime(), sum}
	return sum
}
