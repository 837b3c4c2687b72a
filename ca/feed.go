package ca

// changed is told which serial numbers of a CA were revoked, held, released or given another reason, on whichever replica:
// at once when it was this one, otherwise within half a second.
type changed func(caID int64, serials []string)

// onChange adds a listener. Call it before Run.
func (a *Authority) onChange(f changed) { a.listeners = append(a.listeners, f) }
