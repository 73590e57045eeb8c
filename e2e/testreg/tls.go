package testreg

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"time"
)

// ClientCertificate is what a client has to show, and its key, both in PEM; nil
// without Options.Client.
func (r *Registry) ClientCertificate() (cert, key []byte) { return r.client[0], r.client[1] }

// startTLS serves with a certificate for the loopback interface and for the
// address outside, signed by an authority that nobody knows.
func (r *Registry) startTLS() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root := template("story authority")
	root.IsCA, root.KeyUsage = true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	r.ca = encode("CERTIFICATE", caDER)
	issue := func(leaf *x509.Certificate) (der []byte, key *ecdsa.PrivateKey, err error) {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, nil, err
		}
		der, err = x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), caKey)
		return der, key, err
	}
	leaf := template("story registry")
	leaf.IPAddresses, leaf.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	if ip := net.ParseIP(External()); ip != nil {
		leaf.IPAddresses = append(leaf.IPAddresses, ip)
	}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, key, err := issue(leaf)
	if err != nil {
		return err
	}
	r.front.TLS = &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	if r.options.Client {
		if err := r.wantClient(issue); err != nil {
			return err
		}
	}
	r.front.StartTLS()
	return nil
}

// wantClient lets in only who shows a certificate that issue has signed.
func (r *Registry) wantClient(issue func(*x509.Certificate) ([]byte, *ecdsa.PrivateKey, error)) error {
	leaf := template("story client")
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, key, err := issue(leaf)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	r.client = [2][]byte{encode("CERTIFICATE", der), encode("PRIVATE KEY", private)}
	r.front.TLS.ClientAuth, r.front.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	r.front.TLS.ClientCAs.AppendCertsFromPEM(r.ca)
	return nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// External is an IPv4 address of this machine that is not loopback, "" if it has none.
func External() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

// listenOutside moves a server that has not started yet to the address outside.
func listenOutside(s *httptest.Server) error {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(External())})
	if err != nil {
		return err
	}
	err = s.Listener.Close()
	s.Listener = l
	return err
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
}
