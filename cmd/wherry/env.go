package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/term"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// env is everything a command may touch outside of its options. Environment
// variables are read in this file and nowhere else.
type env struct {
	Stdin  io.Reader
	Stdout io.Writer    // for archives; all else is written to Out
	Out    bytes.Buffer // what goes to stdout once the command has succeeded
	Stderr io.Writer
	Styled bool // Out has colours, and nothing that others wrote but through printable

	StdinTTY, StdoutTTY, StderrTTY bool
	Width                          func() int              // columns of the terminal that is stdout
	ReadPassword                   func() ([]byte, error)  // from the terminal, without echo
	KeepTerminal                   func() (restore func()) // remembers how the terminal is set
	Getenv                         func(string) string
	Environ                        func() []string // all variables, as NAME=VALUE; nil: none

	StoreDir  string   // --store; empty: the default
	ConfigDir string   // --config; empty: the default
	Idle      []string // docker's global options that were given and do nothing here

	mu  sync.Mutex
	out io.Writer // where say writes; nil: Stderr
}

// newEnv is the environment of the real process.
func newEnv() *env {
	return &env{
		Stdin:        os.Stdin,
		Stdout:       os.Stdout,
		Stderr:       os.Stderr,
		StdinTTY:     term.IsTerminal(int(os.Stdin.Fd())),
		StdoutTTY:    term.IsTerminal(int(os.Stdout.Fd())),
		StderrTTY:    term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb", // no bars where nothing can be drawn
		Width:        stdoutWidth,
		ReadPassword: func() ([]byte, error) { return term.ReadPassword(int(os.Stdin.Fd())) },
		KeepTerminal: func() func() {
			fd := int(os.Stdin.Fd())
			state, err := term.GetState(fd)
			if err != nil {
				return func() {}
			}
			return func() { _ = term.Restore(fd, state) }
		},
		Getenv:  os.Getenv,
		Environ: os.Environ,
	}
}

// stdoutWidth is 0 where nobody knows.
func stdoutWidth() int {
	width, _, _ := term.GetSize(int(os.Stdout.Fd()))
	return width
}

// environ are all variables by their names.
func (e *env) environ() map[string]string {
	values := map[string]string{}
	if e.Environ == nil {
		return values
	}
	for _, kv := range e.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		values[k] = v
	}
	return values
}

// say tells the person something on stderr, above the progress bars.
func (e *env) say(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.out
	if w == nil {
		w = e.Stderr
	}
	fmt.Fprintf(w, format+"\n", args...)
}

// note tells what is worth knowing, and no error.
func (e *env) note(msg string) { e.say("note: %s", printable(msg)) }

// sayThrough has say write to w: whoever draws bars keeps the lines apart.
func (e *env) sayThrough(w io.Writer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out = w
}

// flush writes Out to stdout.
func (e *env) flush() error {
	text := e.Out.Bytes()
	if e.StdoutTTY && !e.Styled {
		text = harmless(text)
	}
	if _, err := e.Stdout.Write(text); err != nil {
		return &outputError{err}
	}
	e.Out.Reset()
	return nil
}

// columns is how long a line on stdout may be, 0 for as long as it likes.
func (e *env) columns() int {
	if !e.StdoutTTY || e.Width == nil {
		return 0
	}
	return e.Width()
}

// colours says whether stdout may have them: a terminal, unless its user wants none
// (no-color.org).
func (e *env) colours() bool {
	return e.StdoutTTY && e.Getenv("NO_COLOR") == "" && e.Getenv("TERM") != "dumb"
}

// storeDir is where the images are: --store, WHERRY_STORE, or root's or the
// user's own folder.
func (e *env) storeDir() (string, error) {
	if dir := firstOf(e.StoreDir, e.Getenv("WHERRY_STORE")); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/wherry/store", nil
	}
	data := e.Getenv("XDG_DATA_HOME")
	if runtime.GOOS == "windows" {
		data = firstOf(data, e.Getenv("LOCALAPPDATA"))
	}
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", withHint(fmt.Errorf("no folder for the store: %w", err), "%s --store DIR ...", program)
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "wherry", "store"), nil
}

// now is the date of what is made here: SOURCE_DATE_EPOCH, in seconds, where a
// result has to be the same every time (reproducible-builds.org), else the clock's.
func (e *env) now() (time.Time, error) {
	epoch := e.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 || seconds > maxEpoch {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, not a number of seconds", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// maxEpoch is the end of the year 9999, the last one that a date can be written of.
const maxEpoch = 253402300799

func (e *env) openStore() (*layout.Store, error) {
	dir, err := e.storeDir()
	if err != nil {
		return nil, err
	}
	return layout.Open(dir, layout.WithNotice(func(msg string) { e.say("%s", printable(msg)) }))
}

// registryClient returns a client with the user's credentials and hosts;
// progress is told of uploads and may be nil.
func (e *env) registryClient(progress func(v1.Descriptor, int64)) (*registry.Client, error) {
	return e.registryClientFor(false, progress)
}

// registryClientFor is registryClient, or with insecure one that trusts every
// host and needs no TLS.
func (e *env) registryClientFor(insecure bool, progress func(v1.Descriptor, int64)) (*registry.Client, error) {
	c, err := e.registryConfig()
	if err != nil {
		return nil, err
	}
	c.Insecure, c.Progress = insecure, progress
	return registry.New(c), nil
}

// inPod says that this is a container of Kubernetes.
func (e *env) inPod() bool { return e.Getenv("KUBERNETES_SERVICE_HOST") != "" }

func (e *env) registryConfig() (registry.Config, error) {
	stored, err := e.credentials()
	return registry.Config{
		Keychain:  stored,
		HostsDirs: e.hostsDirs(),
		UserAgent: userAgent(),
		Notice:    func(msg string) { e.say("%s", printable(msg)) },
	}, err
}

// credentials reads docker's configuration, and podman's beside it.
func (e *env) credentials() (*registry.Credentials, error) {
	var podman []string
	for _, file := range []string{
		e.Getenv("REGISTRY_AUTH_FILE"),
		joinIf(e.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json"),
		joinIf(e.userConfigDir(), "containers", "auth.json"),
	} {
		if file != "" {
			podman = append(podman, file)
		}
	}
	stored, err := registry.LoadCredentials(e.dockerConfigDir(), podman...)
	if err != nil {
		return nil, err
	}
	if given := e.Getenv("DOCKER_AUTH_CONFIG"); given != "" { // as CI systems hand it over
		if err := stored.Override([]byte(given)); err != nil {
			return nil, fmt.Errorf("DOCKER_AUTH_CONFIG: %w", err)
		}
	}
	return stored, nil
}

func (e *env) dockerConfigDir() string {
	home, _ := os.UserHomeDir() // without one there is no configuration
	return firstOf(e.ConfigDir, e.Getenv("DOCKER_CONFIG"), joinIf(home, ".docker"))
}

func (e *env) userConfigDir() string {
	home, _ := os.UserHomeDir()
	return firstOf(e.Getenv("XDG_CONFIG_HOME"), joinIf(home, ".config"))
}

// buildersDir is where the user's builders are kept.
func (e *env) buildersDir() string { return joinIf(e.userConfigDir(), "wherry", "builders") }

// hostsDirs are the certs.d folders that say how registries are reached: the
// user's own before the machine's, and wherry's before those of others.
func (e *env) hostsDirs() []string {
	dirs := []string{
		joinIf(e.userConfigDir(), "wherry", "certs.d"),
		joinIf(e.dockerConfigDir(), "certs.d"),
		"/etc/wherry/certs.d",
		"/etc/containerd/certs.d",
		"/etc/docker/certs.d",
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return dir == "" })
}

// joinIf is filepath.Join below a folder that may not be known.
func joinIf(dir string, rest ...string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(append([]string{dir}, rest...)...)
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// harmless shows control characters instead of letting a terminal obey them.
func harmless(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
