package softhsmtest

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"signet/keystore"
	"signet/softhsm"
)

// instance is a folder with a copy of the fault module and of the module behind it. A copy is a library of its own for
// the dynamic linker, with variables and, by the shim, an environment of its own: any number of them work side by side
// in one process, and none shares its state with the SoftHSM2 of [Token].
type instance struct {
	dir     string
	shim    shim
	control []uint32 // struct control of shim.h
}

// newInstance makes the folder, which is gone when the test ends. The file env is to follow, see shim.h.
func newInstance(t testing.TB, module string) *instance {
	t.Helper()
	compiled, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "signet-fault-") // short: the path of a socket may come into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	i := &instance{dir: dir, shim: compiled}
	for from, to := range map[string]string{compiled.path: i.module(), module: i.path("real.so")} {
		library, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, library, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// The mapping stays for good: a call that a test has given up may still look at it.
	if i.control, err = mapControl(i.path("control"), len(compiled.functions)); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *instance) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(i.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (i *instance) path(name string) string { return filepath.Join(i.dir, name) }

func (i *instance) module() string { return i.path("fault.so") }

// mapControl makes struct control of shim.h, with rows for the functions, and maps it.
func mapControl(path string, functions int) ([]uint32, error) {
	words := firstRow + functions*rowWords
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(words * 4)); err != nil {
		return nil, err
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, words*4, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	control := unsafe.Slice((*uint32)(unsafe.Pointer(&memory[0])), words)
	atomic.StoreUint32(&control[wordLayout], layout)
	atomic.StoreUint32(&control[wordFunctions], uint32(functions))
	return control, nil
}

// softhsmInstance is an instance in front of SoftHSM2, with a folder of tokens of its own.
func softhsmInstance(t testing.TB) *instance {
	t.Helper()
	module, err := softhsm.Find()
	if err != nil {
		t.Fatal(err)
	}
	i := newInstance(t, module)
	if err := os.Mkdir(i.path("tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	i.write(t, "softhsm2.conf", "directories.tokendir = "+i.path("tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	i.write(t, "env", "SOFTHSM2_CONF="+i.path("softhsm2.conf")+"\n")
	return i
}

// initToken makes a token with a random label and PIN in the instance.
func (i *instance) initToken(t testing.TB) keystore.Config {
	t.Helper()
	cfg := keystore.Config{Module: i.module(), Token: "test-" + rand.Text(), PIN: softhsm.NewPIN(), Timeout: time.Minute}
	if err := keystore.InitToken(t.Context(), cfg, softhsm.NewPIN()); err != nil {
		t.Fatal(err)
	}
	i.write(t, "pin", cfg.PIN+"\n")
	return cfg
}
