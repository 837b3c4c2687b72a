// Signet is a certificate authority whose CA keys live in a PKCS#11 token and cannot leave it.
//
// This package joins the parts into one program. What must never happen here: a secret in an argument, a log line or
// an error; a request answered before the last run's reservations are closed; the token closed while a request still
// signs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// The exit codes.
const (
	exitFailed = 1 // the command was understood and did not succeed
	exitUsage  = 2 // an argument, a setting or a file of settings is wrong
)

// version is set by the linker; see the Makefile.
var version = ""

// usageError is a mistake in an argument or a setting.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// commands is the command line. The words after it are each command's help.
type commands struct {
	Serve     serveCommand      `cmd:"" help:"Run the certificate authority."`
	User      userCommands      `cmd:"" help:"Manage accounts, directly in the server's database."`
	Evidence  evidenceCommands  `cmd:"" help:"Check what a server says of its CA keys, offline."`
	Token     tokenCommands     `cmd:"" help:"Look after the tokens and the keys in them that are Signet's own, on the server itself."`
	Key       keyCommands       `cmd:"" help:"Look after the keys in the tokens, on the server itself."`
	CA        caCommands        `cmd:"" name:"ca" help:"Make CAs of keys that exist already, on the server itself."`
	Retention retentionCommands `cmd:"" help:"Look after how long records are kept, directly in the server's database."`
	Migrate   migrateCommand    `cmd:"" help:"Bring the database to this program's schema and print its version."`
	Health    healthCommand     `cmd:"" help:"Ask a running server whether it is ready; exit code 1 when it is not."`
	Version   versionCommand    `cmd:"" help:"Print the version."`

	TokenWorker tokenWorkerCommand `cmd:"" name:"token-worker" hidden:"" help:"Started by the server, with --pkcs11-worker: run the PKCS#11 library of one token."`
}

// invocation is what every command gets: data goes to stdout, words to stderr.
type invocation struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
}

func main() {
	syscall.Umask(0o077) // whatever this process makes, a database or a token, is its own
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := 0
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "signet:", err)
		code = exitFailed
		if errors.As(err, new(usageError)) {
			code = exitUsage
		}
	}
	os.Exit(code)
}

// run is the program: it does what the arguments say, until that is done or ctx ends.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	var cli commands
	helped := false
	parser, err := newParser(&cli, stdout, stderr, func(int) { helped = true })
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if helped { // the help was asked for and printed
		return nil
	}
	if err != nil {
		return usagef("%w (see signet --help)", err)
	}
	return command.Run(&invocation{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now})
}

// newParser describes the command line. exit is called when the help was asked for and printed.
func newParser(cli *commands, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	parser, err := kong.New(cli,
		kong.Name("signet"),
		kong.Description("A certificate authority whose CA keys live in a PKCS#11 token and cannot leave it."),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Resolvers(&configFile{}),
	)
	if err != nil {
		return nil, fmt.Errorf("describe command line: %w", err)
	}
	return parser, nil
}

type versionCommand struct{}

func (versionCommand) Run(in *invocation) error {
	_, err := fmt.Fprintln(in.stdout, "signet", programVersion())
	return err
}

// programVersion is the linker's version, else that of the module, as "go install" records it.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
