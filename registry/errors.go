package registry

import (
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// NotFoundError says that a registry does not have what a reference names.
type NotFoundError struct {
	Ref string // as a person would type it: "alpine:3.20"
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("%q is not in the registry", e.Ref) }

// UnauthorizedError says that a registry refused access: nobody is logged in,
// the credentials are wrong, or they do not allow what was asked for.
type UnauthorizedError struct {
	Host            string // the name credentials are kept under: "docker.io", "registry.corp:5000"
	Ref             string // what access was asked for; empty for a login
	CredentialsSent bool   // whether any credentials were sent
	Message         string // what the registry said, bounded and printable; may be empty
}

func (e *UnauthorizedError) Error() string {
	var b strings.Builder
	switch {
	case e.Ref != "":
		fmt.Fprintf(&b, "registry %s refuses access to %q", e.Host, e.Ref)
	case e.CredentialsSent:
		fmt.Fprintf(&b, "registry %s refuses the credentials", e.Host)
	default:
		fmt.Fprintf(&b, "registry %s asks for credentials", e.Host)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	return b.String()
}

// UnreachableError says that no connection to a registry came about.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("registry %s is unreachable: %v", e.Host, e.Err)
}

// Unwrap returns the network error.
func (e *UnreachableError) Unwrap() error { return e.Err }

// TLSError says that a registry's certificate was not accepted, or that it does
// not speak TLS at all.
type TLSError struct {
	Host  string
	Plain bool // the host answered in plain HTTP
	Err   error
}

func (e *TLSError) Error() string {
	return fmt.Sprintf("registry %s cannot be trusted: %v", e.Host, e.Err)
}

// Unwrap returns the error of the handshake.
func (e *TLSError) Unwrap() error { return e.Err }

// RateLimitError says that a registry wants to be asked later, and that waiting
// as long as is reasonable did not help.
type RateLimitError struct {
	Host       string
	RetryAfter time.Duration // as the registry said; 0 if it did not
	Message    string        // what the registry said, bounded and printable; may be empty
}

func (e *RateLimitError) Error() string {
	s := fmt.Sprintf("registry %s limits the rate of requests", e.Host)
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (retry after %s)", e.RetryAfter)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// DigestError says that a registry sent other bytes than the digest names.
type DigestError struct {
	Host      string
	Want, Got v1.Hash
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("registry %s sent wrong bytes for %s: they are %s", e.Host, e.Want, e.Got)
}

// StatusError is any other refusal of a registry.
type StatusError struct {
	Host    string
	Status  int    // of HTTP
	Message string // what the registry said, bounded and printable; may be empty
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("registry %s answers with status %d", e.Host, e.Status)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}
