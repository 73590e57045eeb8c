package registry

import (
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// NotFoundError says that a registry does not have what a reference names.
type NotFoundError struct {
	Ref string // as a person would type it: "alpine:3.20", "registry.corp/app@sha256:…"
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%q not found in the registry", e.Ref)
}

// UnauthorizedError says that a registry refused access: nobody is logged in,
// the credentials are wrong, or they do not allow what was asked for. Some
// registries, Docker Hub among them, answer so for repositories that do not exist.
type UnauthorizedError struct {
	Host            string // what to log in to: "docker.io", "registry.corp:5000"
	Ref             string // what access was asked for; empty for a login
	CredentialsSent bool   // whether any credentials were sent
	Message         string // what the registry said, bounded and printable; may be empty
}

func (e *UnauthorizedError) Error() string {
	var s string
	switch {
	case e.Ref != "":
		s = fmt.Sprintf("registry %s denies access to %q", e.Host, e.Ref)
	case e.CredentialsSent:
		s = fmt.Sprintf("registry %s does not accept the credentials", e.Host)
	default:
		s = fmt.Sprintf("registry %s asks for credentials", e.Host)
	}
	return withMessage(s, e.Message)
}

// UnreachableError says that no connection to a registry came about, or that it
// broke again and again.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("registry %s is unreachable: %s", e.Host, networkReason(e.Err))
}

// Unwrap returns the network error.
func (e *UnreachableError) Unwrap() error { return e.Err }

// TLSError says that a registry's certificate was not accepted, that it did not
// accept ours, or that it does not speak TLS at all.
type TLSError struct {
	Host    string
	Dir     string // the certs.d folder that the registry is configured in; "" if there is none
	Plain   bool   // the host answered in plain HTTP
	Refused bool   // the host ended the handshake: it may want a certificate of ours
	Err     error
}

func (e *TLSError) Error() string {
	if e.Plain {
		return fmt.Sprintf("registry %s answers in plain HTTP, not TLS", e.Host)
	}
	return fmt.Sprintf("no trusted connection to registry %s: %s", e.Host, tlsReason(e.Err))
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
	s := fmt.Sprintf("registry %s allows no more requests for now", e.Host)
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (retry after %s)", e.RetryAfter.Round(time.Second))
	}
	return withMessage(s, e.Message)
}

// DigestError says that a registry, or another source of what was pushed, has
// other bytes than the digest names.
type DigestError struct {
	Host      string // "": the source is no registry
	Want, Got v1.Hash
}

func (e *DigestError) Error() string {
	if e.Host == "" {
		return fmt.Sprintf("wrong bytes for %s: their digest is %s", e.Want, e.Got)
	}
	return fmt.Sprintf("registry %s sent wrong bytes for %s: their digest is %s", e.Host, e.Want, e.Got)
}

// SizeError says that a registry announces a blob with another size than its
// manifest does, or does not stop sending.
type SizeError struct {
	Host      string
	Digest    v1.Hash
	Want, Got int64 // in bytes; Got is -1 for more than were wanted
}

func (e *SizeError) Error() string {
	if e.Got < 0 {
		return fmt.Sprintf("the registry sends more than the %d bytes of %s", e.Want, e.Digest)
	}
	return fmt.Sprintf("registry %s announces %d bytes of %s instead of %d", e.Host, e.Got, e.Digest, e.Want)
}

// FormatError says that what a registry sent is no manifest or index that can be
// used.
type FormatError struct {
	Ref string
	Why string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("manifest of %q: %s", e.Ref, e.Why)
}

// StatusError is any other refusal of a registry.
type StatusError struct {
	Host    string
	Status  int    // of HTTP
	Message string // what the registry said, bounded and printable; may be empty
}

func (e *StatusError) Error() string {
	return withMessage(fmt.Sprintf("registry %s answers with status %d", e.Host, e.Status), e.Message)
}

// withMessage adds what a registry said.
func withMessage(s, message string) string {
	if message == "" {
		return s
	}
	return s + ": " + strings.TrimSuffix(message, ".")
}
