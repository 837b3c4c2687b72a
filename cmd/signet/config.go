package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"signet/ca"
	"signet/notify"
)

//go:generate go test -run ^TestConfigurationManualIsCurrent$ -update .

// Config is every setting of the server. Each is a flag, an environment variable and a key of the YAML file that
// --config names, in that order of precedence; the key is the name of the flag. The help texts below are the manual:
// docs/configuration.md is made from them.
//
// No setting holds a secret. Secrets come from files, whose paths are settings, or from the variables that the help
// texts name.
type Config struct {
	ConfigFile string `name:"config" env:"SIGNET_CONFIG" placeholder:"FILE" help:"YAML file of settings: its keys are the names of these flags. An unknown key is an error."`

	DataDir         string        `name:"data-dir" env:"SIGNET_DATA_DIR" default:"./var" placeholder:"DIR" group:"Server" help:"Folder for what the server keeps itself: SQLite database, SoftHSM2 token and its PIN, secret key. Made with mode 0700; one server at a time uses it. Default: ./var."`
	Listen          string        `name:"listen" env:"SIGNET_LISTEN" default:"127.0.0.1:8000" placeholder:"HOST:PORT" group:"Server" help:"Address to serve on. Port 0 takes a free one. Default: 127.0.0.1:8000."`
	PublicURL       string        `name:"public-url" env:"SIGNET_PUBLIC_URL" placeholder:"URL" group:"Server" help:"Base of the CRL, OCSP and issuer URLs written into certificates; relying parties must reach it. Default: made from the listen address."`
	TLSCert         string        `name:"tls-cert" env:"SIGNET_TLS_CERT" placeholder:"FILE" group:"Server" help:"PEM certificate chain of the server itself; turns on HTTPS, TLS 1.2 or later. Needs --tls-key."`
	TLSKey          string        `name:"tls-key" env:"SIGNET_TLS_KEY" placeholder:"FILE" group:"Server" help:"PEM private key of --tls-cert."`
	TrustedProxies  networks      `name:"trusted-proxies" env:"SIGNET_TRUSTED_PROXIES" placeholder:"CIDR,…" group:"Server" help:"Networks or addresses of the reverse proxies whose X-Forwarded-For names the client, for the login limit, the log and the audit trail. Default: none; the client is whoever connects."`
	ShutdownTimeout time.Duration `name:"shutdown-timeout" env:"SIGNET_SHUTDOWN_TIMEOUT" default:"30s" group:"Server" help:"How long requests in flight may take to finish after SIGTERM."`

	MaxConnections int `name:"max-connections" env:"SIGNET_MAX_CONNECTIONS" default:"0" placeholder:"N" group:"Server" help:"Connections at once. A further one takes the place of the one that has been idle or slow for longest. 0 means 4096, or what the limit of open files leaves."`
	MaxIssuing     int `name:"max-issuing" env:"SIGNET_MAX_ISSUING" default:"0" placeholder:"N" group:"Server" help:"Requests for certificates that are worked on at once; as many wait for a moment, or four times as many in a burst, and others are answered 503 with Retry-After. 0 means two for each session that the tokens may have."`

	DatabaseURL          string `name:"database-url" env:"SIGNET_DATABASE_URL" placeholder:"URL" group:"Database" help:"postgres://USER@HOST/NAME or sqlite:PATH. Default: SQLite in the data folder."`
	DatabasePasswordFile string `name:"database-password-file" env:"SIGNET_DATABASE_PASSWORD_FILE" placeholder:"FILE" group:"Database" help:"File with the password for a postgres:// URL, so that it need not stand in the URL."`

	PKCS11Module      string        `name:"pkcs11-module" env:"SIGNET_PKCS11_MODULE" placeholder:"FILE" group:"Token" help:"PKCS#11 library of the token. Default: SoftHSM2, found on the machine, with a token made in the data folder."`
	PKCS11Token       string        `name:"pkcs11-token" env:"SIGNET_PKCS11_TOKEN" placeholder:"LABEL" group:"Token" help:"Label of the token. Needed with --pkcs11-module, where the token must exist. Without a module, the label of the token made in the data folder; default: signet."`
	PKCS11PINFile     string        `name:"pkcs11-pin-file" env:"SIGNET_PKCS11_PIN_FILE" placeholder:"FILE" group:"Token" help:"File with the user PIN of the token; SIGNET_PKCS11_PIN is accepted instead. Needed with --pkcs11-module. Without a module, 4 to 255 characters for the token made in the data folder; default: random and kept there. The PIN is never an argument."`
	PKCS11InitArgs    string        `name:"pkcs11-init-args" env:"SIGNET_PKCS11_INIT_ARGS" placeholder:"STRING" group:"Token" help:"String given to C_Initialize; NSS softokn needs one."`
	PKCS11MaxSessions int           `name:"pkcs11-max-sessions" env:"SIGNET_PKCS11_MAX_SESSIONS" default:"0" placeholder:"N" group:"Token" help:"Upper bound of parallel token sessions, opened as they are needed; 0 means 32, or four for each processor if that is more."`
	PKCS11Timeout     time.Duration `name:"pkcs11-timeout" env:"SIGNET_PKCS11_TIMEOUT" default:"10s" group:"Token" help:"Deadline of one token operation; making a key may take six times as long."`
	PKCS11Patience    time.Duration `name:"pkcs11-patience" env:"SIGNET_PKCS11_PATIENCE" default:"3s" group:"Token" help:"How long requests wait for a token that went away before they answer 503. Once it has been away for longer they answer at once."`
	PKCS11Worker      bool          `name:"pkcs11-worker" env:"SIGNET_PKCS11_WORKER" default:"false" group:"Token" help:"Let the server run the PKCS#11 library in a process of its own, so that a library that crashes, hangs or leaks takes that process with it, which is replaced, and not the server. A signature costs more processor time."`
	Tokens            furtherTokens `name:"tokens" env:"SIGNET_TOKENS" placeholder:"YAML" group:"Token" help:"Further tokens by name: a YAML mapping of names to module, token, pin-file and, optionally, init-args, max-sessions, timeout and worker, as a mapping in the settings file, as text, or @FILE. The token of the settings above is named default. A CA is made on the token that it asks for; one whose key several tokens hold signs on another one while its own is away."`
	AcceptMissingKeys bool          `name:"accept-missing-ca-keys" env:"SIGNET_ACCEPT_MISSING_CA_KEYS" default:"false" group:"Token" help:"Start although the token has the key of none of the CAs in the database: for a database whose CA keys were destroyed on purpose."`

	KeyDrillInterval time.Duration `name:"key-drill-interval" env:"SIGNET_KEY_DRILL_INTERVAL" default:"24h" group:"Token" help:"How often the key of each CA is attacked; 0 leaves it to the start of the server and to requests. A drill makes refusals in the log of an HSM."`

	KeysAhead int `name:"keys-ahead" env:"SIGNET_KEYS_AHEAD" default:"256" placeholder:"N" group:"Token" help:"RSA-2048 keys for certificates that are made while the server has nothing else to do, and kept in memory, sealed by the token, so that a burst of requests need not wait for primes; of other RSA sizes an eighth of it, once they are asked for. At most 10000; 0 makes none."`

	CRLValidity time.Duration `name:"crl-validity" env:"SIGNET_CRL_VALIDITY" default:"168h" group:"Revocation" help:"From a list's thisUpdate to its nextUpdate. This and the next two hold for CAs whose revocation policy does not say otherwise."`
	CRLRefresh  time.Duration `name:"crl-refresh" env:"SIGNET_CRL_REFRESH" default:"24h" group:"Revocation" help:"A list that did not change is replaced so long after its thisUpdate."`
	CRLOverlap  time.Duration `name:"crl-overlap" env:"SIGNET_CRL_OVERLAP" default:"24h" group:"Revocation" help:"A list is replaced at least so long before its nextUpdate, whatever --crl-refresh says."`
	CRLCoalesce time.Duration `name:"crl-coalesce" env:"SIGNET_CRL_COALESCE" default:"1s" group:"Revocation" help:"Time between two publications of a list that changes all the time. The first change is published at once."`
	LeaseTTL    time.Duration `name:"lease-ttl" env:"SIGNET_LEASE_TTL" default:"10s" group:"Revocation" help:"One replica publishes for all; when it dies, another one takes over after this time."`

	OCSPValidity          time.Duration `name:"ocsp-validity" env:"SIGNET_OCSP_VALIDITY" default:"24h" group:"Revocation" help:"From thisUpdate to nextUpdate of an OCSP answer, for CAs whose revocation policy does not say otherwise. After half of it a new one is signed when somebody asks."`
	OCSPResponderValidity time.Duration `name:"ocsp-responder-validity" env:"SIGNET_OCSP_RESPONDER_VALIDITY" default:"336h" group:"Revocation" help:"Validity of the certificate of an OCSP responder. It is renewed after half of it."`
	OCSPCache             int           `name:"ocsp-cache" env:"SIGNET_OCSP_CACHE" default:"65536" placeholder:"N" group:"Revocation" help:"OCSP answers that are held in memory, about 1 KiB each. Others are read from the database."`
	OCSPSigners           int           `name:"ocsp-signers" env:"SIGNET_OCSP_SIGNERS" default:"0" placeholder:"N" group:"Revocation" help:"OCSP answers that are signed at once, so that a flood leaves the token to issuance; 0 means half as many as processors."`
	OCSPRate              rate          `name:"ocsp-rate" env:"SIGNET_OCSP_RATE" default:"20/second" placeholder:"N/PERIOD" group:"Revocation" help:"OCSP answers with a nonce, for several certificates or for unknown serial numbers that are signed for one client address: N/second, N/minute, N/hour, or off. Other answers are signed once and given to everybody."`

	RetainExpired time.Duration `name:"retain-expired" env:"SIGNET_RETAIN_EXPIRED" default:"0" group:"Retention" help:"How long certificates are kept after their notAfter, with their private keys and entries in the ledger, and what is known of revocation lists after their nextUpdate. OCSP then says unknown. 24h or longer; 0 is for ever."`
	RetainAudit   time.Duration `name:"retain-audit" env:"SIGNET_RETAIN_AUDIT" default:"0" group:"Retention" help:"How long entries of the audit trail are kept. Those that tell of a removal stay. 24h or longer; 0 is for ever."`
	RetainArchive string        `name:"retain-archive" env:"SIGNET_RETAIN_ARCHIVE" placeholder:"DIR" group:"Retention" help:"Folder that keeps what is removed, as JSON lines in gzip, without private keys. Default: it is gone."`

	SecretKeyFile                    string        `name:"secret-key-file" env:"SIGNET_SECRET_KEY_FILE" placeholder:"FILE" group:"Accounts" help:"File with the HS256 secret of access tokens, at least 32 characters; SIGNET_SECRET_KEY is accepted instead. Replicas share it. Default: made and kept in the data folder."`
	LoginRate                        rate          `name:"login-rate" env:"SIGNET_LOGIN_RATE" default:"5/minute" placeholder:"N/PERIOD" group:"Accounts" help:"Login attempts allowed to one client address: N/second, N/minute, N/hour, or off."`
	AllowUnauthenticatedRegistration bool          `name:"allow-unauthenticated-registration" env:"SIGNET_ALLOW_UNAUTHENTICATED_REGISTRATION" default:"false" group:"Accounts" help:"Let anybody create an account of role user."`
	AccessTokenTTL                   time.Duration `name:"access-token-ttl" env:"SIGNET_ACCESS_TOKEN_TTL" default:"15m" group:"Accounts" help:"Life of an access token."`
	RefreshTokenTTL                  time.Duration `name:"refresh-token-ttl" env:"SIGNET_REFRESH_TOKEN_TTL" default:"24h" group:"Accounts" help:"Life of a refresh token."`
	PasswordCost                     int           `name:"password-cost" env:"SIGNET_PASSWORD_COST" default:"12" placeholder:"N" group:"Accounts" help:"bcrypt cost of new passwords, 4 to 31; each step doubles the time of a login. Below 10 is for tests."`

	WebhookURL        string     `name:"webhook-url" env:"SIGNET_WEBHOOK_URL" placeholder:"URL" group:"Notifications" help:"Where to post what operators are told: certificates and CAs that are about to expire, lists and OCSP responders that were not renewed. https:// or http://, without user and password. Default: nobody is told."`
	WebhookSecretFile string     `name:"webhook-secret-file" env:"SIGNET_WEBHOOK_SECRET_FILE" placeholder:"FILE" group:"Notifications" help:"File with the secret that signs what is posted, at least 16 characters; SIGNET_WEBHOOK_SECRET is accepted instead. Needed with --webhook-url."`
	NotifyBefore      thresholds `name:"notify-before" env:"SIGNET_NOTIFY_BEFORE" default:"720h,168h,24h" placeholder:"DURATIONS" group:"Notifications" help:"How long before its end a certificate is told, once for each of these times, separated by commas; off: not at all."`
	NotifyCABefore    thresholds `name:"notify-ca-before" env:"SIGNET_NOTIFY_CA_BEFORE" default:"2160h,720h,168h" placeholder:"DURATIONS" group:"Notifications" help:"The same for CAs."`

	LogLevel      string `name:"log-level" env:"SIGNET_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" group:"Logs and metrics" help:"debug, info, warn or error."`
	LogFormat     string `name:"log-format" env:"SIGNET_LOG_FORMAT" default:"text" enum:"text,json" placeholder:"FORMAT" group:"Logs and metrics" help:"text or json, on standard error."`
	MetricsListen string `name:"metrics-listen" env:"SIGNET_METRICS_LISTEN" placeholder:"HOST:PORT" group:"Logs and metrics" help:"Serve /metrics on this address instead of the main one."`
}

// check finds what is wrong with the settings before anything is opened.
func (c *Config) check() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return usagef("--listen %q: %w", c.Listen, err)
	}
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			return usagef("--metrics-listen %q: %w", c.MetricsListen, err)
		}
	}
	switch {
	case c.DataDir == "":
		return usagef("--data-dir must not be empty")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return usagef("--tls-cert and --tls-key are given together or not at all")
	case c.PKCS11Module != "" && c.PKCS11Token == "":
		return usagef("--pkcs11-module needs --pkcs11-token, the label of a token that exists")
	case c.PKCS11Module == "" && c.PKCS11InitArgs != "":
		return usagef("--pkcs11-init-args needs --pkcs11-module")
	case len(c.PKCS11Token) > 32: // PKCS#11 2.40, section 3.2: CK_TOKEN_INFO.label
		return usagef("--pkcs11-token %q has more than 32 bytes", c.PKCS11Token)
	case c.MaxConnections < 0 || c.MaxIssuing < 0:
		return usagef("--max-connections and --max-issuing must not be negative")
	case c.PKCS11MaxSessions < 0:
		return usagef("--pkcs11-max-sessions must not be negative")
	case c.CRLRefresh+c.CRLOverlap >= c.CRLValidity:
		return usagef("--crl-refresh (%s) and --crl-overlap (%s) together must be shorter than --crl-validity (%s)", c.CRLRefresh, c.CRLOverlap, c.CRLValidity)
	case c.CRLCoalesce > time.Minute: // the least overlap that a policy may have: a list must not lapse while it waits
		return usagef("--crl-coalesce must not be longer than 1m")
	case c.LeaseTTL < time.Second:
		return usagef("--lease-ttl must be 1s or longer: it is renewed several times meanwhile")
	case c.OCSPResponderValidity < time.Hour: // each renewal makes a key in the token
		return usagef("--ocsp-responder-validity must be 1h or longer")
	case c.OCSPCache < 0 || c.OCSPSigners < 0:
		return usagef("--ocsp-cache and --ocsp-signers must not be negative")
	case c.KeysAhead < 0 || c.KeysAhead > 10_000:
		return usagef("--keys-ahead must be between 0 and 10000")
	case c.KeyDrillInterval < 0:
		return usagef("--key-drill-interval must not be negative")
	case c.RetainExpired != 0 && c.RetainExpired < ca.MinRetention || c.RetainAudit != 0 && c.RetainAudit < ca.MinRetention:
		return usagef("--retain-expired and --retain-audit must be 24h or longer, or 0")
	case c.PasswordCost < 4 || c.PasswordCost > 31:
		return usagef("--password-cost must be between 4 and 31")
	}
	for name, d := range map[string]time.Duration{
		"shutdown-timeout": c.ShutdownTimeout, "pkcs11-timeout": c.PKCS11Timeout, "pkcs11-patience": c.PKCS11Patience,
		"crl-validity": c.CRLValidity, "crl-refresh": c.CRLRefresh, "crl-overlap": c.CRLOverlap, "crl-coalesce": c.CRLCoalesce,
		"ocsp-validity":    c.OCSPValidity,
		"access-token-ttl": c.AccessTokenTTL, "refresh-token-ttl": c.RefreshTokenTTL,
	} {
		if d <= 0 {
			return usagef("--%s must be longer than zero", name)
		}
	}
	if c.WebhookURL != "" {
		if err := notify.CheckURL(c.WebhookURL); err != nil {
			return usagef("--webhook-url: %w", err)
		}
	}
	if c.PublicURL != "" {
		return checkPublicURL(c.PublicURL)
	}
	return nil
}

// checkPublicURL keeps out what would make broken URLs in certificates, which cannot be taken back: they are ASCII
// (RFC 5280, section 4.2.1.6), absolute, and something is appended to them.
func checkPublicURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return usagef("--public-url: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return usagef("--public-url %q must start with http:// or https:// and name a host", s)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return usagef("--public-url %q must not have a user, a query or a fragment", s)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return usagef("--public-url %q must be ASCII: write the host as an A-label (xn--…)", s)
	}
	return nil
}

// publicURL is the base of the URLs in certificates, without trailing slash, when the server listens on addr. guessed
// reports that the address does not say under which name others reach this machine.
func (c *Config) publicURL(addr net.Addr) (base string, guessed bool) {
	if c.PublicURL != "" {
		return strings.TrimRight(c.PublicURL, "/"), false
	}
	base, wildcard := c.localURL(addr)
	return base, wildcard
}

// localURL is where this machine reaches a server that listens on addr.
func (c *Config) localURL(addr net.Addr) (base string, wildcard bool) {
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	host := addr.String()
	if ap, err := netip.ParseAddrPort(host); err == nil && ap.Addr().IsUnspecified() {
		host, wildcard = fmt.Sprintf("localhost:%d", ap.Port()), true
	}
	return scheme + "://" + host, wildcard
}

// rate is how often one client address may do something in a period. The zero value is no limit.
type rate struct {
	Attempts int
	Per      time.Duration
}

var periods = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour}

// UnmarshalText reads "N/second", "N/minute", "N/hour" or "off".
func (r *rate) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*r = rate{}
		return nil
	}
	count, period, _ := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(count)
	per, known := periods[period]
	if err != nil || n < 1 || !known {
		return fmt.Errorf("%q is not N/second, N/minute, N/hour or off", text)
	}
	*r = rate{Attempts: n, Per: per}
	return nil
}
