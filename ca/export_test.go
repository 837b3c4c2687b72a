package ca

// OnChange adds a listener to revocations.
func (a *Authority) OnChange(f func(caID int64, serials []string)) { a.onChange(f) }

// Running reports whether Run runs: before that, everybody leads.
func (a *Authority) Running() bool { return a.running.Load() }
