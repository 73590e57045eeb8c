package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// fault turns an error of s's requests into one of this package's types.
func (s *session) fault(err error) error {
	if denied, ok := errors.AsType[*UnauthorizedError](err); ok {
		if denied.Ref == "" {
			denied.Ref = s.ref
		}
		return denied
	}
	if status, ok := errors.AsType[*transport.Error](err); ok {
		return s.refusal(status.StatusCode, nil, diagnostics(status))
	}
	return s.to.fault(err)
}

// refused reads what a registry has against a request, and closes the answer.
func (s *session) refused(resp *http.Response) error {
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // the status alone says enough
	return s.refusal(resp.StatusCode, resp.Header, bodyMessage(body))
}

// refusal is the error for a status of HTTP.
func (s *session) refusal(status int, h http.Header, message string) error {
	if status == http.StatusNotFound && s.after == nil { // a push creates what is not there
		return &NotFoundError{Ref: s.ref}
	}
	err := s.to.refusal(status, h, message, s.auth.sentCredentials())
	if denied, ok := errors.AsType[*UnauthorizedError](err); ok {
		denied.Ref = s.ref
	}
	return err
}

// refusal is the error for any status but "not found".
func (e *endpoint) refusal(status int, h http.Header, message string, sent bool) error {
	message = bounded(message)
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &UnauthorizedError{Host: e.account(), CredentialsSent: sent, Message: message}
	case http.StatusTooManyRequests:
		return &RateLimitError{Host: e.account(), RetryAfter: retryAfter(h, time.Now()), Message: message}
	}
	return &StatusError{Host: e.account(), Status: status, Message: message}
}

// fault names the host in an error that came from the network, once.
func (e *endpoint) fault(err error) error {
	var (
		network net.Error
		request *url.Error
	)
	for errors.As(err, &request) {
		err = request.Err // its address may be a stand-in, and says too much
	}
	switch {
	case errors.Is(err, context.Canceled) && !errors.Is(err, errStalled),
		errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &network):
		return err
	case is[*UnreachableError](err), is[*TLSError](err), is[*RateLimitError](err), is[*StatusError](err), is[*HelperError](err):
		return err
	case isTLS(err):
		return &TLSError{Host: e.account(), Dir: e.dir, Plain: errors.Is(err, http.ErrSchemeMismatch), Refused: isAlert(err), Err: err}
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errStalled):
		return &UnreachableError{Host: e.account(), Err: err}
	case request != nil:
		return fmt.Errorf("registry %s: %w", e.account(), err)
	}
	return err
}

// is reports whether there is an error of type E in err.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func isTLS(err error) bool {
	return errors.Is(err, http.ErrSchemeMismatch) || isAlert(err) ||
		is[*tls.CertificateVerificationError](err) || is[tls.RecordHeaderError](err) ||
		is[x509.UnknownAuthorityError](err) || is[x509.HostnameError](err) || is[x509.CertificateInvalidError](err)
}

// isAlert: the other side ended the handshake. The type of an alert is not
// exported; only so is it told from other errors of the network.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// tlsReason is the innermost thing the TLS library says.
func tlsReason(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		return "its certificate is signed by an unknown authority"
	case errors.As(err, &name):
		return bounded(name.Error())
	case errors.As(err, &invalid):
		return bounded(invalid.Error())
	case isAlert(err):
		return "it says " + strings.TrimPrefix(bounded(innermost(err).Error()), "tls: ")
	}
	return bounded(innermost(err).Error())
}

// networkReason is the shortest true reason in the layers of a network error.
func networkReason(err error) string {
	var (
		errno   syscall.Errno
		dns     *net.DNSError
		timeout net.Error
	)
	switch {
	case errors.Is(err, errStalled):
		return errStalled.Error()
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection broke"
	}
	return bounded(innermost(err).Error())
}

func innermost(err error) error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}

// bodyMessage is what a registry says in the errors of its answer, or nothing:
// pages of HTML help nobody.
func bodyMessage(body []byte) string {
	var said struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"` // token servers
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	if len(said.Errors) > 0 {
		return cmp.Or(said.Errors[0].Message, said.Errors[0].Code)
	}
	return cmp.Or(said.Details, said.Message)
}

func diagnostics(e *transport.Error) string {
	if len(e.Errors) == 0 {
		return ""
	}
	return cmp.Or(e.Errors[0].Message, string(e.Errors[0].Code))
}

// bounded makes foreign text fit for a message.
func bounded(s string) string { return printable(s, maxMessage) }

// printable makes foreign text fit for a terminal: at most so many bytes, one
// line, nothing but printable characters.
func printable(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)), " ")
}
