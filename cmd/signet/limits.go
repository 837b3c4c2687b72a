package main

import (
	"cmp"
	"runtime"
	"syscall"
)

const (
	// defaultConnections take some 60 MiB of memory when nothing is asked on them.
	defaultConnections = 4096
	// maxScrapers is how many connections --metrics-listen has.
	maxScrapers = 16
	// reservedFiles are the file descriptors for what is not a client's: database, token, logs.
	reservedFiles = 128
)

// maxConnections is the configured bound, or the default; no more than the process may have files open, less a reserve.
// Go has raised the soft limit to the hard one (RLIMIT_NOFILE, getrlimit(2)).
func (c *Config) maxConnections() int {
	n := c.MaxConnections
	if n == 0 {
		n = defaultConnections
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur < uint64(n+reservedFiles) {
		n = max(int(files.Cur)-reservedFiles, int(files.Cur)/2, 1)
	}
	return n
}

// maxIssuing is the configured bound, or two for each session that the tokens may have: while one request is at the token,
// another is checked or recorded.
func (c *Config) maxIssuing() int {
	if c.MaxIssuing > 0 {
		return c.MaxIssuing
	}
	byDefault := max(32, 4*runtime.NumCPU()) // keystore.Config.MaxSessions
	sessions := cmp.Or(c.PKCS11MaxSessions, byDefault)
	for _, t := range c.Tokens.byName {
		sessions += cmp.Or(t.MaxSessions, byDefault)
	}
	return 2 * sessions
}

// maxSlow is how many clients may be slow with a body at once: their connections count as worked for, and others must get through.
func (c *Config) maxSlow() int { return min(1024, max(1, c.maxConnections()/4)) }
