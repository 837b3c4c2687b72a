package worker

import "crypto/sha256"

// nextPIN returns the PIN to open the token with: the one that was good last, else what its source says now. Errors: the
// token's refusal, when it has refused that one before, be it another worker that tried it.
func (t *Token) nextPIN() (string, error) {
	t.mu.Lock()
	pin, refusal := t.pin, t.refused[sha256.Sum256([]byte(t.pin))]
	t.mu.Unlock()
	if refusal == nil {
		return pin, nil
	}
	if pin = t.askPIN(); pin == "" {
		return "", refusal
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if refusal := t.refused[sha256.Sum256([]byte(pin))]; refusal != nil {
		return "", refusal
	}
	t.pin = pin
	return pin, nil
}

// askPIN asks the source of the PIN, "" if it has none.
func (t *Token) askPIN() string {
	if t.cfg.Keystore.PINSource == nil {
		return ""
	}
	pin, err := t.cfg.Keystore.PINSource()
	if err != nil {
		return ""
	}
	return pin
}

// tellPIN answers a worker that asks, because the token has refused what it had.
func (p *process) tellPIN() {
	pin := p.token.askPIN()
	if pin != "" {
		p.token.mu.Lock()
		p.pin, p.token.pin = pin, pin
		p.token.mu.Unlock()
	}
	_ = p.link.send(sealed(append(newFrame(kindPIN, 0, len(pin)), pin...))) // a worker that has ended needs none
}

// refused remembers a refused PIN, so that no worker tries it again: some tokens lock after three refusals.
func (p *process) refused(err error) {
	t := p.token
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[sha256.Sum256([]byte(p.pin))] = err
}
