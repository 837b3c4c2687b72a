package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"signet/identity"
	"signet/policy"
	"signet/store"
)

// userCommands manage accounts without a login: whoever may read the database may do this.
type userCommands struct {
	Create userCreateCommand `cmd:"" help:"Create an account. The password is read from the first line of standard input, or from a file; it is never an argument."`
}

type userCreateCommand struct {
	Username     string `name:"username" required:"" placeholder:"NAME" help:"Name to log in with."`
	Email        string `name:"email" required:"" placeholder:"ADDRESS" help:"E-mail address."`
	Superuser    bool   `name:"superuser" help:"Short for --role superuser."`
	Role         string `name:"role" default:"user" enum:"user,admin,superuser" placeholder:"ROLE" help:"user, admin or superuser."`
	Organization int64  `name:"organization-id" placeholder:"ID" help:"The organization of an admin or a user."`
	PasswordFile string `name:"password-file" placeholder:"FILE" help:"File with the password."`

	Config
}

// Run creates the account in the server's own database, whether or not the server runs.
func (c *userCreateCommand) Run(in *invocation) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.Superuser {
		if c.Role == string(policy.RoleAdmin) {
			return usagef("--superuser and --role %s contradict each other", c.Role)
		}
		c.Role = string(policy.RoleSuperuser)
	}
	log := c.logger(in.stderr)
	password, err := c.password(in, log)
	if err != nil {
		return err
	}
	if err := makeDataDir(c.DataDir); err != nil {
		return err
	}
	db, err := openDatabase(in.ctx, &c.Config, log, time.Now, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	user, err := c.create(in.ctx, db, password)
	if err != nil {
		return fmt.Errorf("create user: %w", err)
	}
	_, err = fmt.Fprintf(in.stdout, "created user %d: %s, role %s\n", user.ID, user.Username, user.Role)
	return err
}

func (c *userCreateCommand) create(ctx context.Context, db *store.DB, password string) (identity.User, error) {
	// No access token is made here, so the secret that would sign them does not matter.
	unused := make([]byte, minSecretKey)
	rand.Read(unused)
	people, err := identity.New(identity.Config{
		Store: db, Secret: unused, AccessTTL: c.AccessTokenTTL, RefreshTTL: c.RefreshTokenTTL,
		BcryptCost: c.PasswordCost, Now: time.Now,
	})
	if err != nil {
		return identity.User{}, err
	}
	request := identity.Registration{
		Username: c.Username, Email: c.Email, Password: password, Role: policy.Role(c.Role),
		Loopback: true, // whoever can open the database is on this side of the server
	}
	if c.Organization != 0 {
		request.OrganizationID = &c.Organization
	}
	had, err := db.HasUsers(ctx)
	if err != nil {
		return identity.User{}, err
	}
	if !had {
		return people.Register(ctx, nil, request)
	}
	operator := policy.Caller{Username: "signet user create", Role: policy.RoleSuperuser}
	return people.Register(ctx, &operator, request)
}

// maxPassword bounds what is read of a stranger's standard input; bcrypt itself ends at 72 octets.
const maxPassword = 4096

func (c *userCreateCommand) password(in *invocation, log *slog.Logger) (string, error) {
	if c.PasswordFile != "" {
		return readSecret(log, "password-file", c.PasswordFile)
	}
	if f, ok := in.stdin.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprint(in.stderr, "Password (it shows as you type): ")
		}
	}
	line, err := bufio.NewReader(io.LimitReader(in.stdin, maxPassword)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	password := strings.TrimRight(line, "\r\n")
	if password == "" {
		return "", usagef("no password on standard input, and no --password-file")
	}
	return password, nil
}
