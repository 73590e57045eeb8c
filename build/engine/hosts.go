//go:build linux

package engine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
)

// A registry that can't be reached is to be known in seconds, not after the
// minute that is containerd's default.
const (
	dialTimeout     = 10 * time.Second
	responseTimeout = 60 * time.Second
)

// registryHosts resolves hosts, mirrors, CAs and plain HTTP from hosts.toml and
// docker's certs.d files, as package registry does for pull and push.
func registryHosts(ctx context.Context, dirs []string) docker.RegistryHosts {
	return config.ConfigureHosts(ctx, config.HostOptions{
		HostDir:      func(host string) (string, error) { return hostDir(dirs, host) },
		UpdateClient: boundWaits,
	})
}

func hostDir(dirs []string, host string) (string, error) {
	for _, root := range dirs {
		dir, err := config.HostDirFromRoot(root)(host)
		if err == nil || !errors.Is(err, errdefs.ErrNotFound) {
			return dir, err
		}
	}
	return "", errdefs.ErrNotFound
}

func boundWaits(c *http.Client) error {
	t, ok := c.Transport.(*http.Transport)
	if !ok {
		return nil
	}
	t = t.Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = responseTimeout
	c.Transport = t
	return nil
}
