package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/mattn/go-runewidth"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// The program's exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError is a command line that can't be understood.
type usageError struct {
	command string // "wherry image ls"
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// unknownCommandError is a first word that is no command.
type unknownCommandError struct {
	parent, name, near string
	engine             bool // it is one of docker's, for containers
}

func (e *unknownCommandError) Error() string {
	if e.engine {
		return fmt.Sprintf("%q needs docker's engine: wherry has images, no containers", e.name)
	}
	return fmt.Sprintf("%q is not a %s command", e.name, e.parent)
}

// hintedError is an error of a command that knows what to type instead.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

func withHint(err error, format string, args ...any) error {
	return &hintedError{err: err, hint: fmt.Sprintf(format, args...)}
}

// exitWith ends this process with the code of the one that ran the command for it
// and has said all there is to say.
type exitWith int

func (e exitWith) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// outputError is one of the file or pipe that the user's data goes to, not of the store.
type outputError struct{ err error }

func (e *outputError) Error() string { return e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

func isOfOutput(err error) bool {
	_, ours := errors.AsType[*outputError](err)
	_, archive := errors.AsType[*layout.WriteError](err)
	return ours || archive
}

// concernedError knows what the command was about, for the hint; its text is
// that of the error within, which names the thing itself.
type concernedError struct {
	command, operand string
	err              error
}

func (c *concernedError) Error() string { return c.err.Error() }
func (c *concernedError) Unwrap() error { return c.err }

// concerning marks err as one of this command about this operand.
func concerning(command, operand string, err error) error {
	if err == nil {
		return nil
	}
	return &concernedError{command: command, operand: operand, err: err}
}

// report prints err, where there is one, and returns the exit code it stands for.
func report(ctx context.Context, e *env, err error) int {
	w := e.Stderr
	if err == nil {
		return exitDone
	}
	if ran, ok := errors.AsType[exitWith](err); ok {
		return int(ran)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(w, program+": interrupted")
		return exitInterrupted
	}
	store, _ := e.storeDir() // only to see which errors are about it
	text, hint, code := describe(err, places{store: store, hosts: firstOf(e.hostsDirs()...), pod: e.inPod()})
	fmt.Fprintf(w, "%s: %s\n", program, printable(runewidth.Truncate(text, maxError, "…")))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable(hint))
	}
	return code
}

// maxError is the width of an error, in columns: an archive's or a registry's own
// words may be of any length.
const maxError = 2000

// places are the folders that hints speak of, and where all of this is.
type places struct {
	store, hosts string // hosts: the user's own certs.d
	pod          bool   // this is one of Kubernetes
}

// describe is the one place that turns errors into words, a command to type and
// an exit code.
func describe(err error, at places) (text, hint string, code int) {
	text = err.Error()
	if e, ok := errors.AsType[*usageError](err); ok {
		return text, fmt.Sprintf("run '%s --help'", e.command), exitUsage
	}
	if e, ok := errors.AsType[*unknownCommandError](err); ok {
		if e.near == "" {
			return text, fmt.Sprintf("run '%s --help'", e.parent), exitUsage
		}
		return text, e.parent + " " + e.near, exitUsage
	}
	if e, ok := errors.AsType[*badFormatError](err); ok {
		if len(e.fields) > 0 {
			hint = "there are the fields ." + strings.Join(e.fields, " .")
		}
		return text, hint, exitUsage
	}
	if e, ok := errors.AsType[*hintedError](err); ok {
		return text, e.hint, exitFailed
	}
	if isOfOutput(err) {
		return text, "", exitFailed
	}
	about, ok := errors.AsType[*concernedError](err)
	if !ok {
		about = &concernedError{}
	}
	if e, ok := errors.AsType[*layout.InUseError](err); ok {
		text = inUseText(e)
	}
	if e, ok := errors.AsType[*layout.SharedError](err); ok {
		text = sharedText(e)
	}
	if e, ok := errors.AsType[*platform.NoMatchError](err); ok && about.operand != "" {
		return fmt.Sprintf("%q: %v", about.operand, e), about.platformHint(e), exitFailed
	}
	return text, firstOf(hintForBuild(err, at.pod), damageHint(err), about.storeHint(err), about.registryHint(err, at.hosts), systemHint(err, at.store)), exitFailed
}

// inUseText is e with names as people type them.
func inUseText(e *layout.InUseError) string {
	short := &layout.InUseError{Ref: e.Ref, Part: e.Part}
	for _, name := range e.Names {
		short.Names = append(short.Names, firstOf(familiarString(name), none))
	}
	return short.Error()
}

// sharedText is e with names as people type them.
func sharedText(e *layout.SharedError) string {
	short := *e
	short.Names = nil
	for _, name := range e.Names {
		short.Names = append(short.Names, familiarString(name))
	}
	return short.Error()
}

// platformHint is the same command with a platform that there is.
func (c *concernedError) platformHint(e *platform.NoMatchError) string {
	switch {
	case c.command == "load" || len(e.Have) == 0:
		return ""
	case c.command == "rmi":
		return fmt.Sprintf("%s rmi --platform %s %s", program, quotedPlatform(e.Have[0]), c.operand)
	case c.command == "pull", c.command == "copy":
		return strings.TrimSpace(fmt.Sprintf("%s %s --platform %s %s %s", program, c.command, quotedPlatform(e.Have[0]), c.operand, map[string]string{"copy": "DST"}[c.command]))
	}
	return fmt.Sprintf("%s pull --platform %s %s", program, quotedPlatform(e.Want), c.operand)
}

// quotedPlatform is a platform as a shell takes it: one with a version has brackets, and
// those of an image may have anything.
func quotedPlatform(p v1.Platform) string {
	text := platform.Format(p)
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789/._-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// storeHint helps where the store does not have what was asked for.
func (c *concernedError) storeHint(err error) string {
	if e, ok := errors.AsType[*layout.AmbiguousError](err); ok && len(e.IDs) > 0 {
		return fmt.Sprintf("%s %s %s", program, c.command, unambiguous(e.IDs))
	}
	if e, ok := errors.AsType[*layout.InUseError](err); ok {
		if !e.Part {
			return fmt.Sprintf("%s rmi -f %s", program, e.Ref)
		}
		return fmt.Sprintf("%s rmi %s", program, familiarString(firstOf(e.Names...)))
	}
	if e, ok := errors.AsType[*layout.SharedError](err); ok {
		if e.Whole {
			return fmt.Sprintf("%s rmi %s", program, familiarString(e.Names[0]))
		}
		return fmt.Sprintf("%s rmi -f --platform %s %s", program, quotedPlatform(e.Platform), e.Ref)
	}
	if _, damaged := errors.AsType[*layout.DigestError](err); damaged && slices.Contains([]string{"inspect", "history", "push", "rmi", "save", "tag"}, c.command) {
		return fmt.Sprintf("%s check --repair %s", program, c.operand)
	}
	if e, wrong := errors.AsType[*registry.DigestError](err); wrong && e.Host == "" && c.command == "push" {
		return fmt.Sprintf("%s check --repair %s", program, c.operand)
	}
	_, missing := errors.AsType[*layout.MissingError](err)
	_, unknown := errors.AsType[*layout.NotFoundError](err)
	if !missing && !unknown || c.command == "copy" && !strings.HasPrefix(c.operand, "store:") {
		return ""
	}
	operand := strings.TrimPrefix(c.operand, "store:")
	if ref, err := registry.ParseReference(operand); err == nil && !isHex(operand) && c.command != "rmi" && c.command != "push" {
		return fmt.Sprintf("%s pull %s", program, reference.FamiliarString(ref))
	}
	return program + " images"
}

// unambiguous is the shortest prefix of the first ID, of at least twelve digits,
// that none of the others has.
func unambiguous(ids []v1.Hash) string {
	first := ids[0].Hex
	for n := 12; n < len(first); n++ {
		if !slices.ContainsFunc(ids[1:], func(h v1.Hash) bool { return strings.HasPrefix(h.Hex, first[:n]) }) {
			return first[:n]
		}
	}
	return ids[0].String()
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == "" || strings.HasPrefix(s, "sha256:")
}

// registryHint helps with what a registry says, or where none answers.
func (c *concernedError) registryHint(err error, hosts string) string {
	if e, ok := errors.AsType[*registry.UnauthorizedError](err); ok {
		if c.command == "login" {
			return ""
		}
		return loginCommand(e.Host)
	}
	if e, ok := errors.AsType[*registry.RateLimitError](err); ok {
		return loginCommand(e.Host)
	}
	if e, ok := errors.AsType[*registry.TLSError](err); ok {
		return tlsHint(e, hosts)
	}
	if e, ok := errors.AsType[*registry.NeededError](err); ok {
		return fmt.Sprintf("%s delete %s:%s", program, c.operand, strings.Join(e.Tags, " "+c.operand+":"))
	}
	if e, ok := errors.AsType[*registry.NoDeleteError](err); ok && e.Status == 0 {
		return fmt.Sprintf("%s delete %s@DIGEST deletes an image with all its tags", program, c.operand)
	}
	if _, ok := errors.AsType[*registry.NoDeleteError](err); ok {
		return "docker's registry deletes with REGISTRY_STORAGE_DELETE_ENABLED=true; of Docker Hub, GHCR and ECR only their own pages and tools do"
	}
	return ""
}

func loginCommand(host string) string {
	if host == dockerHub {
		return program + " login"
	}
	return program + " login " + host
}

// systemHint helps where the machine does not let the store be used.
func systemHint(err error, store string) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Sprintf("remove images (%s rmi IMAGE), or keep them on another disk (%[1]s --store DIR ...)", program)
	case errors.Is(err, fs.ErrPermission):
		at, ok := errors.AsType[*fs.PathError](err)
		if ok && store != "" && (strings.HasPrefix(at.Path, store) || strings.HasPrefix(store, at.Path)) {
			return fmt.Sprintf("use a store of your own: %s --store DIR ...", program)
		}
	}
	return ""
}

// printable makes what a server or an archive sent harmless to a terminal:
// control characters are shown, not obeyed.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
