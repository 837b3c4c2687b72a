package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/configuration.md instead of comparing it")

// parseServe parses the arguments of the command serve as the program does.
func parseServe(args []string) (Config, error) {
	var cli commands
	parser, err := newParser(&cli, io.Discard, io.Discard, os.Exit)
	if err != nil {
		return Config{}, err
	}
	_, err = parser.Parse(append([]string{"serve"}, args...))
	return cli.Serve.Config, err
}

// settings are the settings of the command serve, or what is wrong with them.
func settings(args ...string) (Config, error) {
	c, err := parseServe(args)
	if err == nil {
		err = c.check()
	}
	return c, err
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signet.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	c, err := settings()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DataDir: "./var", Listen: "127.0.0.1:8000", ShutdownTimeout: 30 * time.Second, PKCS11Timeout: 10 * time.Second, PKCS11Patience: 3 * time.Second, KeyDrillInterval: 24 * time.Hour, KeysAhead: 256,
		CRLValidity: 168 * time.Hour, CRLRefresh: 24 * time.Hour, CRLOverlap: 24 * time.Hour, CRLCoalesce: time.Second,
		LeaseTTL: 10 * time.Second, OCSPValidity: 24 * time.Hour, OCSPResponderValidity: 336 * time.Hour, OCSPCache: 65536,
		OCSPRate: rate{Attempts: 20, Per: time.Second}, LoginRate: rate{Attempts: 5, Per: time.Minute},
		AccessTokenTTL: 15 * time.Minute, RefreshTokenTTL: 24 * time.Hour, PasswordCost: 12, LogLevel: "info", LogFormat: "text",
		NotifyBefore: thresholds{720 * time.Hour, 168 * time.Hour, 24 * time.Hour}, NotifyCABefore: thresholds{2160 * time.Hour, 720 * time.Hour, 168 * time.Hour},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestAFlagWinsOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	path := file(t, "listen: 127.0.0.1:1\npkcs11-timeout: 1s\nlogin-rate: 7/hour\npassword-cost: 11\nallow-unauthenticated-registration: true\n")
	t.Setenv("SIGNET_LISTEN", "127.0.0.1:2")
	t.Setenv("SIGNET_PKCS11_TIMEOUT", "2s")
	c, err := settings("--config", path, "--listen", "127.0.0.1:3")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:3" || c.PKCS11Timeout != 2*time.Second {
		t.Errorf("listen %s, timeout %s: want the flag's and the environment's", c.Listen, c.PKCS11Timeout)
	}
	if c.LoginRate != (rate{7, time.Hour}) || c.PasswordCost != 11 || !c.AllowUnauthenticatedRegistration {
		t.Errorf("the file's values are missing: %+v", c)
	}
}

func TestTheFileMayBeNamedByTheEnvironment(t *testing.T) {
	t.Setenv("SIGNET_CONFIG", file(t, "log-level: debug\n"))
	if c, err := settings(); err != nil || c.LogLevel != "debug" {
		t.Errorf("log level %q, %v: want debug", c.LogLevel, err)
	}
}

func TestAnEmptyVariableCountsAsUnset(t *testing.T) {
	want, err := settings()
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[Config]().Fields() {
		t.Setenv(field.Tag.Get("env"), "")
	}
	if c, err := settings(); err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v, %v\nwant %+v", c, err, want)
	}
	path := file(t, "listen: 127.0.0.1:1\npkcs11-timeout: 1s\n")
	c, err := settings("--config", path, "--pkcs11-timeout", "3s")
	if err != nil || c.Listen != "127.0.0.1:1" || c.PKCS11Timeout != 3*time.Second {
		t.Errorf("listen %s, timeout %s, %v: want the file's and the flag's", c.Listen, c.PKCS11Timeout, err)
	}
}

func TestAWrongSettingIsRefusedBeforeAnythingIsOpened(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		args []string
		file string
		want string
	}{
		{name: "unknown flag", args: []string{"--lisen=x"}, want: "unknown flag --lisen"},
		{name: "the PIN as a flag", args: []string{"--pkcs11-pin=1234"}, want: "unknown flag --pkcs11-pin"},
		{name: "the secret as a flag", args: []string{"--secret-key=x"}, want: "unknown flag --secret-key"},
		{name: "listen without port", args: []string{"--listen=localhost"}, want: "missing port"},
		{name: "metrics without port", args: []string{"--metrics-listen=localhost"}, want: "missing port"},
		{name: "certificate without key", args: []string{"--tls-cert=a.pem"}, want: "given together"},
		{name: "key without certificate", args: []string{"--tls-key=a.pem"}, want: "given together"},
		{name: "module without token", args: []string{"--pkcs11-module=x.so"}, want: "needs --pkcs11-token"},
		{name: "string for C_Initialize without module", args: []string{"--pkcs11-init-args=x"}, want: "needs --pkcs11-module"},
		{name: "label that no token can have", args: []string{"--pkcs11-token=" + strings.Repeat("x", 33)}, want: "more than 32 bytes"},
		{name: "negative sessions", args: []string{"--pkcs11-max-sessions=-1"}, want: "negative"},
		{name: "no deadline", args: []string{"--pkcs11-timeout=0s"}, want: "longer than zero"},
		{name: "negative keys ahead", args: []string{"--keys-ahead=-1"}, want: "between 0 and 10000"},
		{name: "a million keys ahead", args: []string{"--keys-ahead=1000000"}, want: "between 0 and 10000"},
		{name: "negative life", args: []string{"--access-token-ttl=-1m"}, want: "longer than zero"},
		{name: "duration without unit", args: []string{"--crl-validity=7"}, want: "expected duration"},
		{name: "lists replaced before they are made", args: []string{"--crl-validity=25h", "--crl-refresh=24h", "--crl-overlap=2h"}, want: "must be shorter than"},
		{name: "lists replaced when they end", args: []string{"--crl-validity=48h"}, want: "must be shorter than"},
		{name: "lists that wait until they lapse", args: []string{"--crl-coalesce=2m"}, want: "not be longer than 1m"},
		{name: "lease that nobody can renew", args: []string{"--lease-ttl=1ms"}, want: "1s or longer"},
		{name: "responders that end at once", args: []string{"--ocsp-responder-validity=1m"}, want: "1h or longer"},
		{name: "login rate without period", args: []string{"--login-rate=5"}, want: "is not N/second"},
		{name: "login rate of nothing", args: []string{"--login-rate=0/minute"}, want: "is not N/second"},
		{name: "login rate per day", args: []string{"--login-rate=5/day"}, want: "is not N/second"},
		{name: "cheap passwords", args: []string{"--password-cost=3"}, want: "between 4 and 31"},
		{name: "public URL without scheme", args: []string{"--public-url=pki.example"}, want: "must start with"},
		{name: "public URL of another scheme", args: []string{"--public-url=ftp://pki.example"}, want: "must start with"},
		{name: "public URL with query", args: []string{"--public-url=http://pki.example/?a"}, want: "must not have"},
		{name: "public URL with password", args: []string{"--public-url=http://u:p@pki.example"}, want: "must not have"},
		{name: "public URL beyond ASCII", args: []string{"--public-url=http://zürich.example"}, want: "must be ASCII"},
		{name: "webhook without scheme", args: []string{"--webhook-url=hooks.example"}, want: "must start with"},
		{name: "webhook with password", args: []string{"--webhook-url=https://u:p@hooks.example"}, want: "must not have a user"},
		{name: "the webhook's secret as a flag", args: []string{"--webhook-secret=x"}, want: "unknown flag --webhook-secret"},
		{name: "threshold without unit", args: []string{"--notify-before=30"}, want: "is not a list of durations"},
		{name: "threshold of nothing", args: []string{"--notify-before=24h,0s"}, want: "is not a list of durations"},
		{name: "no threshold", args: []string{"--notify-ca-before=,"}, want: "is not a list of durations"},
		{name: "unknown level", args: []string{"--log-level=loud"}, want: "must be one of"},
		{name: "unknown format", args: []string{"--log-format=xml"}, want: "must be one of"},
		{name: "file that is not there", args: []string{"--config=/nonexistent/signet.yaml"}, want: "no such file"},
		{name: "unknown key", file: "lisen: x", want: `unknown setting "lisen"`},
		{name: "variable as key", file: "SIGNET_LISTEN: x", want: "unknown setting"},
		{name: "file in file", file: "config: other.yaml", want: "unknown setting"},
		{name: "the PIN in the file", file: "pkcs11-pin: 1234", want: "unknown setting"},
		{name: "list for a value", file: "listen: [a, b]", want: "single value"},
		{name: "nothing for a value", file: "listen:", want: "single value"},
		{name: "key given twice", file: "listen: a:1\nlisten: b:1", want: "already defined"},
		{name: "not a mapping", file: "- listen", want: "settings"},
		{name: "wrong type in the file", file: "password-cost: many", want: "expected a valid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			args := test.args
			if test.file != "" {
				args = append(args, "--config", file(t, test.file))
			}
			_, err := settings(args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestLoginRates(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]rate{
		"off": {}, "1/second": {1, time.Second}, "5/minute": {5, time.Minute}, "100/hour": {100, time.Hour},
	} {
		var got rate
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestThePublicURLComesFromTheListenAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		listen, public, cert, want string
		guessed                    bool
	}{
		{listen: "127.0.0.1:8000", want: "http://127.0.0.1:8000"},
		{listen: "127.0.0.1:8443", cert: "cert.pem", want: "https://127.0.0.1:8443"},
		{listen: "[::1]:8000", want: "http://[::1]:8000"},
		{listen: "0.0.0.0:8000", want: "http://localhost:8000", guessed: true},
		{listen: "[::]:8000", want: "http://localhost:8000", guessed: true},
		{listen: "0.0.0.0:8000", public: "https://pki.example/", want: "https://pki.example"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", test.listen)
		if err != nil {
			t.Fatal(err)
		}
		c := Config{PublicURL: test.public, TLSCert: test.cert}
		if got, guessed := c.publicURL(addr); got != test.want || guessed != test.guessed {
			t.Errorf("%+v: got %s, %t", test, got, guessed)
		}
	}
}

func TestEverySettingIsAFlagAVariableAndAKeyOfOneName(t *testing.T) {
	t.Parallel()
	for field := range reflect.TypeFor[Config]().Fields() {
		name, env := field.Tag.Get("name"), field.Tag.Get("env")
		if want := "SIGNET_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")); name == "" || env != want {
			t.Errorf("%s: flag %q has variable %q, want %q", field.Name, name, env, want)
		}
		if help := field.Tag.Get("help"); !strings.HasSuffix(help, ".") {
			t.Errorf("%s: help %q is not a sentence", field.Name, help)
		}
	}
}

const manualPath = "../../docs/configuration.md"

func TestConfigurationManualIsCurrent(t *testing.T) {
	t.Parallel()
	want := manual()
	if *update {
		if err := os.WriteFile(manualPath, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(manualPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/configuration.md differs from the Config struct: run make generate")
	}
}

// manual is docs/configuration.md as the Config struct has it.
func manual() []byte {
	var b bytes.Buffer
	b.WriteString(`# Configuration

<!-- Made from cmd/signet/config.go by "make generate"; a test compares the two. -->

Every setting is a flag, an environment variable and a key of the YAML file that ` + "`--config`" + ` names. A flag wins over
the environment, the environment over the file, the file over the default. The keys of the file are the names of the
flags without dashes in front; an unknown key is an error. Durations are written as in Go: ` + "`90s`, `15m`, `168h`" + `.

No setting holds a secret: secrets come from files, or from the variables named below. The server warns when such a
file can be read by others.

` + "```yaml" + `
# /etc/signet/signet.yaml
listen: 127.0.0.1:8000
public-url: https://pki.example.com
database-url: postgres://signet@db.example.com/signet
database-password-file: /etc/signet/database-password
pkcs11-module: /usr/lib/vendor/libpkcs11.so
pkcs11-token: production
pkcs11-pin-file: /etc/signet/pin
log-format: json
` + "```" + `
`)
	group := "-"
	for field := range reflect.TypeFor[Config]().Fields() {
		tag := field.Tag
		if g := tag.Get("group"); g != group {
			group = g
			heading := group
			if heading == "" {
				heading = "The file"
			}
			fmt.Fprintf(&b, "\n## %s\n\n| flag, key | variable | default | meaning |\n|---|---|---|---|\n", heading)
		}
		value := tag.Get("default")
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", tag.Get("name"), tag.Get("env"), value, strings.ReplaceAll(tag.Get("help"), "|", `\|`))
	}
	b.WriteString(`
## Secrets

| variable | instead of |
|---|---|
| ` + "`SIGNET_PKCS11_PIN`" + ` | ` + "`--pkcs11-pin-file`" + ` |
| ` + "`SIGNET_SECRET_KEY`" + ` | ` + "`--secret-key-file`" + ` |
| ` + "`SIGNET_WEBHOOK_SECRET`" + ` | ` + "`--webhook-secret-file`" + ` |

A file is safer: other processes of the same user can read a process's environment, and child processes inherit it.
`)
	return b.Bytes()
}

func FuzzParseConfigFile(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:8000\nlogin-rate: off\n"))
	f.Add([]byte("password-cost: 12\n"))
	f.Add([]byte("lisen: x"))
	f.Add([]byte("listen: &a [*a]"))
	f.Add([]byte("? - a\n: b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := parseConfigFile(data)
		if err != nil && values != nil {
			t.Error("values beside an error")
		}
		for name := range values {
			if !strings.HasPrefix(variableOf(name), "SIGNET_") {
				t.Errorf("setting %q is not in Config", name)
			}
		}
	})
}

// variableOf returns the variable of a setting, or "".
func variableOf(name string) string {
	for field := range reflect.TypeFor[Config]().Fields() {
		if field.Tag.Get("name") == name {
			return field.Tag.Get("env")
		}
	}
	return ""
}

func TestUsageErrorsAreToldApart(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), []string{"serve", "--listen", "x"}, nil, io.Discard, io.Discard); !errors.As(err, new(usageError)) {
		t.Errorf("got %v, want a usage error", err)
	}
	if err := run(t.Context(), []string{"version"}, nil, io.Discard, io.Discard); err != nil {
		t.Errorf("version: %v", err)
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"192.0.2.0/24", "[192.0.2.0/24]"},
		{"192.0.2.7/24", "[192.0.2.0/24]"},
		{"192.0.2.1, 2001:db8::/32", "[192.0.2.1/32 2001:db8::/32]"},
		{"proxy.example", ""},
		{"", "[]"},
		{"192.0.2.0/33", ""},
	} {
		var n networks
		err := n.UnmarshalText([]byte(c.text))
		if got := fmt.Sprint(n); (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%q: %s, %v; want %s", c.text, got, err, c.want)
		}
	}
}
