package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"signet/ca"
	"signet/evidence"
)

type keyShowCommand struct {
	keyChoice
	outputFormat
	Config
}

// shownKey is what is known of a key.
type shownKey struct {
	ownedKey
	PublicKey  string               `json:"public_key_sha256"` // of the DER SubjectPublicKeyInfo
	Mechanism  string               `json:"mechanism"`
	Grade      evidence.Grade       `json:"grade"` // of the attributes now with the last drill
	Reasons    []string             `json:"reasons"`
	LastDrill  *shownDrill          `json:"last_drill"`
	Acceptance *evidence.Acceptance `json:"acceptance"`
	Locked     string               `json:"locked"` // why the CA certifies nothing; "" when it may
	Attributes map[string]any       `json:"attributes"`
	In         evidence.Token       `json:"identity"`
}

// shownDrill is a drill in numbers.
type shownDrill struct {
	At         time.Time      `json:"at"`
	Trigger    ca.Trigger     `json:"trigger"`
	Grade      evidence.Grade `json:"grade"`
	Conclusive bool           `json:"conclusive"`
	Attacks    int            `json:"attacks"`
	Refused    int            `json:"refused"`
	Impossible int            `json:"not_applicable"`
	Yielded    int            `json:"yielded"`
	Unclear    int            `json:"inconclusive"`
}

func shorten(d ca.KeyDrill) *shownDrill {
	count := func(o evidence.Outcome) int { return len(d.With(o)) }
	return &shownDrill{d.At, d.Trigger, d.Grade, d.Conclusive, len(d.Attacks),
		count(evidence.Refused), count(evidence.NotApplicable), count(evidence.Yielded), count(evidence.Inconclusive)}
}

// Run reads the key back from its token and prints what is known.
func (c *keyShowCommand) Run(in *invocation) (err error) {
	if err := c.keyChoice.check(); err != nil {
		return err
	}
	d, err := c.openDesk(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ref, owned, err := d.choose(in.ctx, c.keyChoice)
	if err != nil {
		return err
	}
	shown, err := d.show(in.ctx, ref, owned)
	if err != nil {
		return err
	}
	return c.write(in.stdout, shown, shown.text)
}

// choose finds the key that a command line names, and its CA, deleted ones too.
func (d *desk) choose(ctx context.Context, k keyChoice) (ca.KeyRef, ownedKey, error) {
	if k.CA == 0 {
		found, err := d.find(ctx, k.Token, k.ID)
		return ca.KeyRef{Token: found.Token, ID: k.ID}, found, err
	}
	c, err := d.db.PublicCA(ctx, k.CA)
	if err != nil {
		return ca.KeyRef{}, ownedKey{}, fmt.Errorf("find CA %d: %w", k.CA, err)
	}
	if c.KeyDestroyedAt != nil {
		return ca.KeyRef{}, ownedKey{}, fmt.Errorf("the key of CA %d was destroyed on %s", c.ID, c.KeyDestroyedAt.UTC().Format(time.RFC3339))
	}
	ref := c.KeyRef()
	ref.Token = d.authority.TokenOf(c)
	return ref, ownedKey{Token: ref.Token, ID: hex.EncodeToString(c.KeyID), Class: "private", Type: string(c.KeyType), Size: c.KeySize, Use: useCA, CA: ownerOf(c)}, nil
}

func (d *desk) show(ctx context.Context, ref ca.KeyRef, owned ownedKey) (*shownKey, error) {
	key, err := d.keys.Inspect(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("inspect key %x: %w", ref.ID, err)
	}
	owned.Label, owned.Type, owned.Size = key.Label, key.Type, key.Size
	shown := &shownKey{
		ownedKey: owned, PublicKey: evidence.Fingerprint(key.PublicKey), Mechanism: key.Mechanism, Attributes: key.Attributes, In: key.Token,
	}
	var last evidence.Drill
	if owned.Use == useCA {
		drills, err := d.db.Drills(ctx, owned.CA.ID, ca.KeptDrills)
		if err != nil {
			return nil, fmt.Errorf("find drills of CA %d: %w", owned.CA.ID, err)
		}
		if len(drills) > 0 {
			shown.LastDrill = shorten(drills[0])
			last = drills[max(0, slices.IndexFunc(drills, func(d ca.KeyDrill) bool { return d.Conclusive }))].Drill
		}
		proof := owned.CA.record.Proof
		shown.Locked = proof.Locked
		if proof.Accepted.Grade != "" {
			shown.Acceptance = &proof.Accepted
		}
	}
	shown.Grade, shown.Reasons = evidence.GradeOf(key.Attributes, last)
	return shown, nil
}

func (k *shownKey) text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("Key", "%s in token %q", k.ID, k.Token)
	row("Label", "%s", or(oneLine(k.Label), "-"))
	row("Kind", "%s, %d bits, signs with %s", k.Type, k.Size, k.Mechanism)
	row("What it is", "%s", k.words())
	row("Public key SHA-256", "%s", k.PublicKey)
	row("Grade", "%s", k.Grade)
	for _, reason := range k.Reasons {
		row("", "- %s", oneLine(reason))
	}
	if k.Use == useCA {
		row("Last drill", "%s", k.LastDrill)
		if a := k.Acceptance; a != nil {
			row("Accepted", "%s, by %s on %s: %s", a.Grade, oneLine(a.By), a.At.UTC().Format(time.RFC3339), oneLine(a.Reason))
		} else {
			row("Accepted", "nothing below drilled")
		}
		row("Locked", "%s", or(oneLine(k.Locked), "no"))
	}
	row("Token", "%s", oneLine(fmt.Sprintf("label %q, %s %s, serial %s, firmware %s", k.In.Label, k.In.Manufacturer, k.In.Model, k.In.Serial, k.In.Firmware)))
	row("Module", "%s, SHA-256 %s", k.In.Module.Path, or(k.In.Module.SHA256, "unknown"))
	for _, name := range slices.Sorted(maps.Keys(k.Attributes)) {
		value := fmt.Sprint(k.Attributes[name])
		if list, ok := k.Attributes[name].([]string); ok {
			value = strings.Join(list, ", ")
		}
		row(name, "%s", oneLine(value))
	}
	return table.Flush()
}

func (d *shownDrill) String() string {
	if d == nil {
		return "none yet"
	}
	text := fmt.Sprintf("%s (%s): grade %s; %d attacks: %d refused, %d without means, %d successful, %d inconclusive",
		d.At.UTC().Format(time.RFC3339), d.Trigger, d.Grade, d.Attacks, d.Refused, d.Impossible, d.Yielded, d.Unclear)
	if !d.Conclusive {
		text += "; it said nothing of the key, and nothing followed"
	}
	return text
}
