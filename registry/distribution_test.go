package registry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// startDistribution runs Debian's docker-registry with a password, and returns
// its address.
func startDistribution(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed:", err)
	}
	free := httptest.NewServer(http.NotFoundHandler())
	address := free.Listener.Addr().String()
	free.Close()
	dir := t.TempDir()
	// The password is "secret".
	writeFile(t, filepath.Join(dir, "htpasswd"), "u:$2a$05$QBhX/N7PSjxlm4rXKGkQh.IHdtr9TXGWhNcI/7RQM/BpQYc6F0edi\n", 0o600)
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, fmt.Sprintf(`version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: %s}
auth: {htpasswd: {realm: here, path: %s}}
`, dir, address, filepath.Join(dir, "htpasswd")), 0o600)
	cmd := exec.CommandContext(t.Context(), program, "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 100 {
		if resp, err := http.Get("http://" + address + "/v2/"); err == nil { //nolint:noctx // ends with the test
			_ = resp.Body.Close()
			return address
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

// The same against the registry that most people run.
func TestDistribution(t *testing.T) {
	host := startDistribution(t)
	login := keychain{host: {Username: "u", Password: "secret"}}
	if err := newClient(Config{}).CheckLogin(t.Context(), host, login[host]); err != nil {
		t.Fatal(err)
	}
	var progress tally
	c := newClient(Config{Keychain: login, Progress: progress.note})
	image, index := newImage(1, 3<<20, 0, 100), newIndex(false) // here every child has to be a manifest
	for name, m := range map[string]*memory{"image": image, "index": index} {
		ref := mustRef(t, host+"/team/"+name+":1.2")
		mustPush(t, c, ref, m)
		mustHold(t, c, ref, m)
		got, err := c.Get(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		layer := image.layer(0)
		if name == "image" && len(read(t, got, layer, 1<<20)) != 2<<20 {
			t.Error("a range of a layer has another length")
		}

		// Into another repository by mounting: no layer is read.
		progress.calls = nil
		if err := c.Push(t.Context(), mustRef(t, host+"/other/"+name+":1"), got); err != nil {
			t.Fatal(err)
		}
		for digest, calls := range progress.calls {
			if len(calls) != 1 || calls[0] == 0 && digest != image.layer(1).Digest {
				t.Errorf("%s was sent: %v", digest, calls)
			}
		}
		mustHold(t, c, mustRef(t, host+"/other/"+name+":1"), m)
	}
	if tags, err := c.Tags(t.Context(), mustRef(t, host+"/team/image")); err != nil || len(tags) != 1 || tags[0] != "1.2" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if err := newClient(Config{}).Push(t.Context(), mustRef(t, host+"/x"), image); err == nil {
		t.Error("pushed without a password")
	}
}

// It has no referrers API.
func TestReferrersOfDistribution(t *testing.T) {
	host := startDistribution(t)
	c := newClient(Config{Keychain: keychain{host: {Username: "u", Password: "secret"}}})
	repo, image := mustRef(t, host+"/team/app:1"), newImage(1, 10)
	mustPush(t, c, repo, image)
	one, two := signature(image.root, 1), signature(image.root, 2)
	mustPush(t, c, byDigest(t, repo, one), one)
	mustPush(t, c, byDigest(t, repo, two), two)
	mustRefer(t, c, repo, image.root, one, two)
}
