//go:build linux

package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/util/archiveutil"
	"github.com/moby/buildkit/util/gitutil"
)

// maxDockerfile bounds a Dockerfile that comes through a pipe or the network, in bytes.
const maxDockerfile = 2 << 20

// NoDockerfileError says that there is nothing to build from.
type NoDockerfileError struct {
	Path string
}

func (e *NoDockerfileError) Error() string { return fmt.Sprintf("no Dockerfile at %q", e.Path) }

// NoGitError says that a context is a git repository, and that git is not installed.
type NoGitError struct {
	Context string
}

func (e *NoGitError) Error() string {
	return fmt.Sprintf("build context %q is a git repository, and git is not installed", e.Context)
}

// sources is what a build reads: one of folder, remote, archive and nothing at all, a
// Dockerfile of its own unless that is in the context, and named contexts.
type sources struct {
	folder  string    // absolute
	remote  string    // git repository or URL
	archive io.Reader // a tar archive

	dockerfile string // absolute folder of the Dockerfile; "": in the context, or text
	text       []byte // the Dockerfile itself; nil: it is a file
	filename   string // its name where it is

	named map[string]string // named contexts

	aside        bool // see inputs
	reproducible bool
	epoch        string            // SOURCE_DATE_EPOCH of a reproducible build that was not told one; else ""
	vcs          map[string]string // the commit that folder is of, in the frontend's words
}

// locate checks what the request names before anything is started.
func locate(ctx context.Context, r Request) (*sources, error) {
	s := &sources{named: r.Contexts}
	if r.Context == "-" && r.Dockerfile == "-" {
		return nil, errors.New("both the context and the Dockerfile are to come from standard input")
	}
	if err := s.locateContext(r); err != nil {
		return nil, err
	}
	if err := s.findEpoch(ctx, r); err != nil {
		return nil, err
	}
	s.findCommit(ctx, r)
	if s.text != nil {
		return s, nil
	}
	return s, s.locateDockerfile(ctx, r)
}

func (s *sources) locateContext(r Request) error {
	if r.Context == "-" {
		return s.fromStdin(r)
	}
	info, err := os.Stat(r.Context)
	switch {
	case err == nil && info.IsDir():
		s.folder, err = filepath.Abs(r.Context)
		return err
	case err == nil:
		return fmt.Errorf("build context %q: not a folder", r.Context)
	case IsURL(r.Context) || isGit(r.Context):
		s.remote = r.Context
		return checkGit(r.Context)
	}
	return fmt.Errorf("build context %q: %w", r.Context, cause(err))
}

// fromStdin tells an archive from a Dockerfile by the first bytes.
func (s *sources) fromStdin(r Request) error {
	in := bufio.NewReaderSize(r.Stdin, 4096)
	head, err := in.Peek(1024)
	switch {
	case len(head) == 0 && errors.Is(err, io.EOF):
		return errors.New("build context \"-\": standard input is empty")
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("build context \"-\": %w", err)
	case archiveutil.IsArchive(head):
		s.archive = in
		return nil
	case r.Dockerfile != "":
		return fmt.Errorf("standard input is a Dockerfile, and so is %q: which one?", r.Dockerfile)
	}
	return s.readText(in, "standard input")
}

// readText takes the Dockerfile from in.
func (s *sources) readText(in io.Reader, from string) (err error) {
	s.filename = "Dockerfile"
	if s.text, err = io.ReadAll(io.LimitReader(in, maxDockerfile+1)); err != nil {
		return fmt.Errorf("read the Dockerfile from %s: %w", from, err)
	}
	if len(s.text) > maxDockerfile {
		return fmt.Errorf("the Dockerfile from %s is larger than %d bytes", from, maxDockerfile)
	}
	if !utf8.Valid(s.text) {
		return fmt.Errorf("the Dockerfile from %s is no text", from)
	}
	if len(bytes.TrimSpace(s.text)) == 0 {
		return fmt.Errorf("the Dockerfile from %s is empty", from)
	}
	return nil
}

func (s *sources) locateDockerfile(ctx context.Context, r Request) error {
	switch {
	case r.Dockerfile == "-":
		return s.readText(r.Stdin, "standard input")
	case IsURL(r.Dockerfile):
		return s.download(ctx, r.Dockerfile, r)
	case s.folder == "" && !filepath.IsAbs(r.Dockerfile):
		s.filename = r.Dockerfile // in the context
		return nil
	}
	path := r.Dockerfile
	if path == "" {
		path = defaultDockerfile(r.Context)
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return &NoDockerfileError{Path: path}
	}
	path, err := filepath.Abs(path)
	s.dockerfile, s.filename = filepath.Split(path)
	return err
}

// defaultDockerfile is Dockerfile, or dockerfile if only that is there, as docker has it.
func defaultDockerfile(dir string) string {
	path := filepath.Join(dir, "Dockerfile")
	if lower := filepath.Join(dir, "dockerfile"); !exists(path) && exists(lower) {
		return lower
	}
	return path
}

// download gets the Dockerfile from a URL. What may be a secret in that is not told.
func (s *sources) download(ctx context.Context, at string, r Request) (err error) {
	name := at
	if u, err := url.Parse(at); err == nil {
		name = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return fmt.Errorf("dockerfile %q: not a URL that can be asked for", name)
	}
	client := r.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // without the URL
	}
	if err != nil {
		return fmt.Errorf("dockerfile %q: %w", name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("dockerfile %q: the server answers %s", name, resp.Status)
	}
	return s.readText(resp.Body, name)
}

func isGit(s string) bool {
	_, is, err := dfgitutil.ParseGitRef(s)
	return is && err == nil
}

func isGitSSH(s string) bool {
	u, err := gitutil.ParseURL(s)
	return err == nil && u.Scheme == gitutil.SSHProtocol
}

// checkGit finds out early what would else fail in the middle of a build.
func checkGit(context string) error {
	if !isGit(context) {
		return nil
	}
	if _, err := exec.LookPath("git"); err != nil {
		return &NoGitError{Context: context}
	}
	return nil
}

// sharedKey tells BuildKit which earlier transfers these folders continue. Without
// it all projects share one synced folder, and a file is taken for that of another
// project with the same name, size and time.
func (s *sources) sharedKey() string { return s.folder + "\x00" + s.dockerfile }
