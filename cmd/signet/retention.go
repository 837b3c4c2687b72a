package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"signet/ca"
)

// retentionCommands look after what a database keeps, on the server itself.
type retentionCommands struct {
	Plan retentionPlanCommand `cmd:"" help:"Show what --retain-expired and --retain-audit would remove now, and what relying parties would notice. Nothing is removed."`
	Run  retentionRunCommand  `cmd:"" help:"Remove it, whether or not a server runs."`
}

type retentionPlanCommand struct {
	outputFormat
	Config
}

// Run prints the plan.
func (c *retentionPlanCommand) Run(in *invocation) (err error) {
	authority, done, err := c.openRetention(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	all, err := authority.PlanRetention(in.ctx, byOperator, c.retention())
	if err != nil {
		return err
	}
	shown := []plannedRemoval{}
	for _, r := range all {
		shown = append(shown, planned(r))
	}
	return c.write(in.stdout, shown, func(w io.Writer) error { return writePlan(w, shown) })
}

type retentionRunCommand struct {
	Archive string `name:"archive" placeholder:"DIR" help:"Folder that keeps what is removed, as JSON lines in gzip. Default: --retain-archive."`

	outputFormat
	Config
}

// Run removes. What was removed is shown although it failed in the end.
func (c *retentionRunCommand) Run(in *invocation) (err error) {
	if c.Archive != "" {
		c.RetainArchive = c.Archive
	}
	authority, done, err := c.openRetention(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	all, failed := authority.Retain(in.ctx, byOperator, c.retention(), c.archive())
	shown := []removal{}
	for _, r := range all {
		shown = append(shown, removal{Kind: r.Kind, CA: optionalID(r.CAID), CAName: r.CAName, Count: r.Count, Bytes: r.Bytes})
	}
	return errors.Join(failed, c.write(in.stdout, shown, func(w io.Writer) error { return writeRemovals(w, shown) }))
}

// retention is the policy of the settings.
func (c *Config) retention() ca.RetentionPolicy {
	return ca.RetentionPolicy{Expired: c.RetainExpired, Audit: c.RetainAudit}
}

// archive is where the settings keep what is removed; nil: nowhere.
func (c *Config) archive() ca.Archive {
	if c.RetainArchive == "" {
		return nil
	}
	return archiveFolder(c.RetainArchive)
}

// openRetention opens the database for a command. No token is needed, as nothing is signed.
func (c *Config) openRetention(in *invocation) (*ca.Authority, func() error, error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	if c.retention() == (ca.RetentionPolicy{}) {
		return nil, nil, usagef("everything is kept for ever: give --retain-expired, --retain-audit or both")
	}
	log := c.logger(in.stderr)
	if err := c.mustHaveDatabase(); err != nil {
		return nil, nil, err
	}
	db, err := openDatabase(in.ctx, c, log, in.now, nil)
	if err != nil {
		return nil, nil, err
	}
	settings := c.authority()
	settings.Store, settings.Now = db, in.now
	return ca.New(settings), db.Close, nil
}

// plannedRemoval is a line of a plan, as its JSON has it.
type plannedRemoval struct {
	Kind    ca.RecordKind `json:"kind"`
	CA      *int64        `json:"ca_id,omitempty"`
	CAName  string        `json:"ca_name,omitempty"`
	Before  time.Time     `json:"ended_before"`
	Count   int64         `json:"count"`
	Oldest  *time.Time    `json:"oldest"`
	Newest  *time.Time    `json:"newest"`
	Bytes   int64         `json:"bytes"`
	Keys    int64         `json:"private_keys,omitempty"`
	Waiting int64         `json:"waiting_for_crl,omitempty"`
	Notice  string        `json:"relying_parties"`
}

func planned(r ca.Removable) plannedRemoval {
	p := plannedRemoval{Kind: r.Kind, CA: optionalID(r.CAID), CAName: r.CAName, Before: r.Before.UTC().Truncate(time.Second), Count: r.Count, Bytes: r.Bytes,
		Keys: r.Keys, Waiting: r.Waiting, Notice: "notice nothing"}
	if r.Count > 0 {
		p.Oldest, p.Newest = &r.Oldest, &r.Newest
	}
	if r.Kind == ca.CertificateRecords && r.Count > 0 {
		p.Notice = fmt.Sprintf("OCSP says unknown, of %d instead of good, of %d instead of revoked; lists stay as they are",
			r.Valid, r.Revoked+r.Abandoned)
	}
	return p
}

// optionalID is an id as JSON has it: left out when there is none.
func optionalID(id int64) *int64 {
	if id == 0 {
		return nil
	}
	return &id
}

func writePlan(w io.Writer, all []plannedRemoval) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "nothing to remove")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tCA\tENDED BEFORE\tCOUNT\tOLDEST\tNEWEST\tBYTES\tKEYS\tWAITING\tRELYING PARTIES")
	for _, p := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\n", p.Kind, authorityName(p.CA, p.CAName), p.Before.Format(time.RFC3339), p.Count,
			dateOf(p.Oldest), dateOf(p.Newest), p.Bytes, p.Keys, p.Waiting, p.Notice)
	}
	return table.Flush()
}

// removal is a line of what was removed, as its JSON has it.
type removal struct {
	Kind   ca.RecordKind `json:"kind"`
	CA     *int64        `json:"ca_id,omitempty"`
	CAName string        `json:"ca_name,omitempty"`
	Count  int64         `json:"count"`
	Bytes  int64         `json:"bytes"` // of the lines that tell of it, before they are compressed
}

func writeRemovals(w io.Writer, all []removal) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "nothing was removed")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tCA\tREMOVED\tBYTES OF LINES")
	for _, r := range all {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\n", r.Kind, authorityName(r.CA, r.CAName), r.Count, r.Bytes)
	}
	return table.Flush()
}

func authorityName(id *int64, name string) string {
	if id == nil {
		return "-"
	}
	return fmt.Sprintf("%d %s", *id, oneLine(name))
}

func dateOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
