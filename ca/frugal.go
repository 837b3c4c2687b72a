package ca

import (
	"runtime/debug"
	"sync"
)

// longList is how many entries make a list a burden, about 8 MB: it is in memory twice when it is joined, beside the list
// before. A garbage collector that waits until the heap has doubled would keep as much again.
const longList = 200_000

var frugal struct {
	sync.Mutex
	lists   int // long ones being made
	percent int // of the garbage collector otherwise
}

// frugality makes the garbage collector keep the heap small while a long list is made.
type frugality struct{ on bool }

// expect says how many entries the list has, as soon as it is known and whenever there are more.
func (f *frugality) expect(entries int) {
	if f.on || entries < longList {
		return
	}
	f.on = true
	frugal.Lock()
	defer frugal.Unlock()
	if frugal.lists++; frugal.lists == 1 {
		frugal.percent = debug.SetGCPercent(20)
	}
}

// end is called when the list has taken the place of the one before, or failed.
func (f *frugality) end() {
	if !f.on {
		return
	}
	f.on = false
	debug.FreeOSMemory() // the list before is not needed any more; there are few pointers in a list, so that it takes little time
	frugal.Lock()
	defer frugal.Unlock()
	if frugal.lists--; frugal.lists == 0 {
		debug.SetGCPercent(frugal.percent)
	}
}
