package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/go-containerregistry/pkg/authn"
)

// lockPatience is how long another process may be about to write config.json.
const lockPatience = 30 * time.Second

// edit puts a, or nothing if it is nil, into config.json under host and leaves
// every other key of the file as it is, also those that no version of docker
// known here has. It reports whether the file has changed.
func (c *Credentials) edit(ctx context.Context, host string, a *authn.AuthConfig) (changed bool, err error) {
	if changed, err = c.lockedRewrite(ctx, host, a); err != nil {
		return false, fmt.Errorf("storing credentials in %q: %w", c.path, err)
	}
	l, err := readLogins(c.path)
	if err != nil {
		return false, err
	}
	c.docker = l
	return changed, nil
}

// lockedRewrite keeps two logins at the same time from losing one of them: the
// file is read and written under a lock. Nothing is locked, or made, in order to
// erase what cannot be there.
func (c *Credentials) lockedRewrite(ctx context.Context, host string, a *authn.AuthConfig) (changed bool, err error) {
	path := linked(c.path)
	if _, err := os.Stat(path); a == nil && errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	lock := flock.New(path + ".lock")
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return false, fmt.Errorf("lock %q: %w", lock.Path(), err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return rewrite(path, host, a)
}

// linked is the file that path stands for, a symbolic link or not.
func linked(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	if target, err := os.Readlink(path); err == nil { // to what does not exist yet
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		return target
	}
	return path
}

func rewrite(path, host string, a *authn.AuthConfig) (changed bool, err error) {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	file, auths := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &file); err != nil {
			return false, err
		}
	}
	if old, ok := file["auths"]; ok {
		if err := json.Unmarshal(old, &auths); err != nil {
			return false, err
		}
	}
	before := len(auths)
	for key := range auths {
		if loginName(key) == host {
			delete(auths, key)
		}
	}
	if a == nil && len(auths) == before {
		return false, nil
	}
	if a != nil {
		if auths[serverKey(host)], err = json.Marshal(newStoredLogin(*a)); err != nil {
			return false, err
		}
	}
	if file["auths"], err = json.Marshal(auths); err != nil {
		return false, err
	}
	if raw, err = json.MarshalIndent(file, "", "\t"); err != nil {
		return false, err
	}
	return true, replaceFile(path, append(raw, '\n'))
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

// replaceFile writes a file whole or not at all. Its owner and mode stay; a new
// one only its owner can read.
func replaceFile(path string, content []byte) (err error) {
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
	if err := errors.Join(keepMode(path, temp.Name()), keepOwner(path, temp.Name())); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

func keepMode(old, file string) error {
	info, err := os.Stat(old)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(file, info.Mode().Perm())
}
