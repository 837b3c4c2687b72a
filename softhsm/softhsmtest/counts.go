package softhsmtest

// Counts is what a fault module has seen, and what it has done.
type Counts struct {
	Calls  map[string]int // calls so far by function, answered or not; [Every] is all of them
	Failed map[string]int // of them, those with an injected answer
	Logins int            // calls of C_Login, by which a token counts wrong PINs

	// Now, in the process that called C_Initialize last.
	Open    int // sessions
	Running int // calls, those that wait included
	Blocked int // calls that wait because of a Hang

	MostOpen    int // highest number of open sessions
	MostRunning int // highest number of parallel calls

	Died    int // sessions that ended by DieAtSign
	Flipped int // signatures with a flipped bit

	// What must never happen, see [Faults].
	Overlaps      int // calls on a session that was in use
	ClosedBusy    int // sessions closed while in use
	FinalizedBusy int // C_Finalize with calls in flight
}

// Violations is how often the token was used in a way that crashes SoftHSM2.
func (c Counts) Violations() int { return c.Overlaps + c.ClosedBusy + c.FinalizedBusy }

// Counts reads the counters.
func (f *Faults) Counts() Counts {
	c := Counts{
		Calls: map[string]int{}, Failed: map[string]int{},
		Running: f.get(wordRunning), Blocked: f.get(wordBlocked),
		MostOpen: f.get(wordMostOpen), MostRunning: f.get(wordMostRunning),
		Died: f.get(wordDied), Flipped: f.get(wordFlipped),
		Overlaps: f.get(wordOverlaps), ClosedBusy: f.get(wordClosedBusy), FinalizedBusy: f.get(wordFinalizedBusy),
	}
	for name := range f.instance.shim.functions {
		row := f.row(name)
		if n := f.get(row + rowCalls); n > 0 {
			c.Calls[name] = n
		}
		if n := f.get(row + rowFailed); n > 0 {
			c.Failed[name] = n
		}
	}
	c.Logins = c.Calls["C_Login"]
	if f.get(wordReaped) == f.get(wordDropped) { // else all are dead, and not yet counted out
		c.Open = f.get(wordOpen)
	}
	return c
}

// ResetCounts sets the counters to 0, but for what is counted now.
func (f *Faults) ResetCounts() {
	for word := wordMostOpen; word <= wordFinalizedBusy; word++ {
		f.set(word, 0)
	}
	for name := range f.instance.shim.functions {
		f.set(f.row(name)+rowCalls, 0)
		f.set(f.row(name)+rowFailed, 0)
	}
}
