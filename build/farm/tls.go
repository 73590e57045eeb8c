package farm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// TLSError says why a node and this process don't trust each other.
type TLSError struct {
	Reason string
	Err    error
}

func (e *TLSError) Error() string { return e.Reason }

func (e *TLSError) Unwrap() error { return e.Err }

// config reads the files.
func (t TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if t.CACert != "" {
		pem, err := os.ReadFile(t.CACert)
		if err != nil {
			return nil, &TLSError{fmt.Sprintf("cacert: %v", err), err}
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &TLSError{Reason: fmt.Sprintf("cacert: no certificate in %q", t.CACert)}
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, &TLSError{fmt.Sprintf("cert and key: %v", err), err}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// secure does the handshake on a connection.
func (t TLS) secure(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c, err := t.config(host)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, c)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, explainTLS(err, c.ServerName)
	}
	return secured, nil
}

// remoteError is what crypto/tls calls an alert of the other side, whose type it keeps to itself.
const remoteError = "remote error"

// explainTLS gives the reasons of TLS words; other errors stay as they are.
func explainTLS(err error, server string) error {
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &TLSError{"its certificate is signed by nobody that cacert names", e}
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return &TLSError{fmt.Sprintf("its certificate is not for %q (servername)", server), e}
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return &TLSError{e.Error(), e}
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &TLSError{"it does not speak TLS", e}
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == remoteError {
		return &TLSError{fmt.Sprintf("it refuses this side's certificate, cert and key (%v)", e.Err), e}
	}
	return err
}
