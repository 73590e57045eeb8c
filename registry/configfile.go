package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
)

// edit puts a, or nothing if it is nil, into config.json under host and leaves
// every other key of the file as it is, also those that no version of docker
// known here has. The file is read anew: another login may have changed it.
func (c *Credentials) edit(host string, a *authn.AuthConfig) error {
	if err := c.rewrite(host, a); err != nil {
		return fmt.Errorf("storing credentials in %q: %w", c.path, err)
	}
	l, err := readLogins(c.path)
	if err != nil {
		return err
	}
	c.docker = l
	return nil
}

func (c *Credentials) rewrite(host string, a *authn.AuthConfig) error {
	raw, err := os.ReadFile(c.path)
	switch {
	case errors.Is(err, os.ErrNotExist) && a == nil:
		return nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	}
	file, auths := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &file); err != nil {
			return err
		}
	}
	if old, ok := file["auths"]; ok {
		if err := json.Unmarshal(old, &auths); err != nil {
			return err
		}
	}
	before := len(auths)
	for key := range auths {
		if loginName(key) == host {
			delete(auths, key)
		}
	}
	if a == nil && len(auths) == before {
		return nil
	}
	if a != nil {
		if auths[serverKey(host)], err = json.Marshal(newStoredLogin(*a)); err != nil {
			return err
		}
	}
	if file["auths"], err = json.Marshal(auths); err != nil {
		return err
	}
	if raw, err = json.MarshalIndent(file, "", "\t"); err != nil {
		return err
	}
	return replaceFile(c.path, append(raw, '\n'))
}

// storedLogin is how docker writes an entry.
type storedLogin struct {
	Auth          string `json:"auth,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

func newStoredLogin(a authn.AuthConfig) storedLogin {
	l := storedLogin{IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a.Username != "" || a.Password != "" {
		l.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
	}
	return l
}

// replaceFile writes a file that only its owner can read, whole or not at all.
// A symbolic link stays one: what it points at is replaced.
func replaceFile(path string, content []byte) (err error) {
	if target, linkErr := filepath.EvalSymlinks(path); linkErr == nil {
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".config-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := keepOwner(path, temp.Name()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
