package ca

import (
	"runtime/debug"
	"sync"
)

// frugalFrom is the size from which a list is a burden: it is in memory a few times while it is signed and stored, beside the
// list before, and a garbage collector that waits until the heap has doubled would keep as much again.
const frugalFrom = 8 << 20

var saving struct {
	sync.Mutex
	lists   int // being made
	percent int // of the garbage collector otherwise
}

// frugal makes the garbage collector keep the heap small while a list of so many octets is made, until the function that it returns
// is called.
func frugal(size int) (done func()) {
	if size < frugalFrom {
		return func() {}
	}
	saving.Lock()
	defer saving.Unlock()
	if saving.lists++; saving.lists == 1 {
		saving.percent = debug.SetGCPercent(20)
	}
	return func() {
		saving.Lock()
		defer saving.Unlock()
		if saving.lists--; saving.lists == 0 {
			debug.SetGCPercent(saving.percent)
		}
	}
}
