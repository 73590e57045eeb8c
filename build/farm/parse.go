package farm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tonistiigi/go-csvvalue"

	"github.com/wherry-oci/wherry/platform"
)

// nodeKeys are what a node may say of itself.
const nodeKeys = "platform, name, cacert, cert, key, servername, wait"

// ParseNode reads "ENDPOINT[,platform=P][,name=NAME][,cacert=FILE][,cert=FILE][,key=FILE]
// [,servername=NAME][,wait=DURATION]" as CSV; platform may be there several times. Files are
// made absolute, and have to be there.
func ParseNode(s string) (Node, error) {
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return Node{}, fmt.Errorf("invalid node %q: %w", s, err)
	}
	n := Node{Endpoint: fields[0]}
	for _, f := range fields[1:] {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return Node{}, fmt.Errorf("invalid node %q: %q is not KEY=VALUE", s, f)
		}
		if err := n.Set(key, value); err != nil {
			return Node{}, fmt.Errorf("invalid node %q: %w", s, err)
		}
	}
	return n, n.check()
}

// Set sets one of the keys that a node has.
func (n *Node) Set(key, value string) (err error) {
	switch strings.ToLower(strings.TrimSpace(key)) {
	case "platform":
		more, err := platform.ParseAll([]string{value})
		n.Platforms = append(n.Platforms, more...)
		return err
	case "name":
		n.Name = value
		return CheckName(value)
	case "cacert":
		n.TLS.CACert, err = existing(value)
	case "cert":
		n.TLS.Cert, err = existing(value)
	case "key":
		n.TLS.Key, err = existing(value)
	case "servername":
		n.TLS.ServerName = value
	case "wait":
		if n.Wait, err = time.ParseDuration(value); err != nil || n.Wait <= 0 {
			return fmt.Errorf("%q is no time to wait, as 20s", value)
		}
	default:
		return fmt.Errorf("no key %q (there is %s)", key, nodeKeys)
	}
	return err
}

func existing(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
