package ca

// OnChange adds a listener to revocations.
func (a *Authority) OnChange(f func(caID int64, serials []string)) { a.onChange(f) }

// Leads reports whether this replica does the background work.
func (a *Authority) Leads() bool { return a.leads() }
