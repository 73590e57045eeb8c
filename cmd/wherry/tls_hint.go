package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wherry-oci/wherry/registry"
)

// tlsHint says what to put where so that a registry can be spoken to. Where
// nothing is configured yet that is below hosts, the user's own certs.d.
func tlsHint(e *registry.TLSError, hosts string) string {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](e)
	dir, prepare := e.Dir, ""
	if dir == "" {
		dir = filepath.Join(hosts, e.Host)
		prepare = "mkdir -p " + dir + " && "
	}
	if file := filepath.Join(dir, "hosts.toml"); exists(file) { // certificates beside it are not looked at
		switch {
		case e.Plain:
			return fmt.Sprintf("write http:// for %s in %s", e.Host, file)
		case unknown:
			return fmt.Sprintf("set ca = \"THE-REGISTRYS-CA.crt\" for %s in %s", e.Host, file)
		case e.Refused:
			return fmt.Sprintf("set client = [[\"YOUR.cert\", \"YOUR.key\"]] for %s in %s", e.Host, file)
		}
		return ""
	}
	switch {
	case e.Plain:
		return fmt.Sprintf("%secho 'server = \"http://%s\"' > %s/hosts.toml", prepare, e.Host, dir)
	case unknown:
		return fmt.Sprintf("%scp THE-REGISTRYS-CA.crt %s/ca.crt", prepare, dir)
	case e.Refused:
		return fmt.Sprintf("%scp YOUR.cert %s/client.cert && cp YOUR.key %[2]s/client.key", prepare, dir)
	}
	return ""
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
