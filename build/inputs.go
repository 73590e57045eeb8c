//go:build linux

package build

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/staticfs"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/wherry-oci/wherry/build/handover"
)

// inputs are a build's sources in the words of BuildKit's client and frontend.
type inputs struct {
	mounts  map[string]fsutil.FS
	stores  map[string]content.Store
	attrs   map[string]string
	session []session.Attachable
	masked  func(dir string) bool // whether not all permissions in it are taken over
	aside   bool                  // modes that would lock us out are noted instead of given
}

// namedContext begins what the engine calls a folder that is a named context.
const namedContext = "named-"

// errStdinGone says that a build would have to start over with an archive that was read.
var errStdinGone = errors.New("the build engine of another process has ended, and standard input can't be read again")

// inputs opens the sources. fail is told of a file that can't be read.
func (s *sources) inputs(fail func(error)) (*inputs, error) {
	in := &inputs{mounts: map[string]fsutil.FS{}, stores: map[string]content.Store{}, attrs: map[string]string{}, masked: s.masked, aside: s.aside}
	if s.filename != "" {
		in.attrs["filename"] = s.filename
	}
	if err := in.addContext(s, fail); err != nil {
		return nil, err
	}
	if err := in.addDockerfile(s, fail); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.named)) {
		if err := in.addNamed(name, s.named[name], fail); err != nil {
			return nil, fmt.Errorf("build context %q: %w", name, err)
		}
	}
	return in, nil
}

func (in *inputs) addContext(s *sources, fail func(error)) error {
	switch {
	case s.folder != "":
		return in.mount("context", s.folder, fail)
	case s.remote != "":
		in.attrs["context"] = s.remote
	case s.archive != nil:
		up := uploadprovider.New()
		in.attrs["context"] = up.Add(&once{s.archive})
		in.session = append(in.session, up)
		s.archive = gone{}
	default:
		in.mounts["context"] = staticfs.NewFS()
	}
	return nil
}

// once is what BuildKit's client may close, though the reader is the caller's.
type once struct{ io.Reader }

func (*once) Close() error { return nil }

// gone stands where an archive was that has been handed over.
type gone struct{}

func (gone) Read([]byte) (int, error) { return 0, errStdinGone }

func (in *inputs) addDockerfile(s *sources, fail func(error)) error {
	switch {
	case s.text != nil:
		files := staticfs.NewFS()
		// A file is sent again only if its size or its time is another.
		files.Add(s.filename, &types.Stat{Mode: 0o644, ModTime: time.Now().UnixNano()}, s.text)
		in.mounts["dockerfile"] = files
	case s.dockerfile != "":
		if err := in.mount("dockerfile", s.dockerfile, fail); err != nil {
			return err
		}
	default:
		return nil // in the context
	}
	if s.folder == "" {
		in.attrs["dockerfilekey"] = "dockerfile"
	}
	return nil
}

func (in *inputs) mount(name, dir string, fail func(error)) error {
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	if files, err = withoutLabels(files); err != nil {
		return err
	}
	in.mounts[name] = readable{files, fail}
	if in.masked(dir) {
		in.mounts[name], err = asInGit(in.mounts[name])
	}
	if err == nil && in.aside {
		in.mounts[name], err = withNotedModes(in.mounts[name])
	}
	return err
}

// withoutLabels leaves SELinux's labels behind, which say where a file is and not what it is.
func withoutLabels(files fsutil.FS) (fsutil.FS, error) {
	return fsutil.NewFilterFS(files, &fsutil.FilterOpt{
		Map: func(_ string, st *types.Stat) fsutil.MapResult {
			delete(st.Xattrs, handover.SELinuxLabel)
			return fsutil.MapResultKeep
		},
	})
}

// withNotedModes has the engine of an ordinary user make files that it can read and change,
// whatever their modes are to be.
func withNotedModes(files fsutil.FS) (fsutil.FS, error) {
	return fsutil.NewFilterFS(files, &fsutil.FilterOpt{
		Map: func(_ string, st *types.Stat) fsutil.MapResult {
			made, key, value, err := handover.Aside(os.FileMode(st.Mode))
			if err == nil && key != "" {
				if st.Xattrs == nil {
					st.Xattrs = map[string][]byte{}
				}
				st.Mode, st.Xattrs[key] = uint32(made), value
			}
			return fsutil.MapResultKeep
		},
	})
}

// addNamed adds one of the contexts that a Dockerfile knows by a name.
func (in *inputs) addNamed(name, value string, fail func(error)) error {
	key, err := contextName(name)
	if err != nil {
		return err
	}
	layout, isLayout := strings.CutPrefix(value, "oci-layout://")
	switch {
	case isLayout:
		store, ref, err := openOCILayout(layout)
		if err != nil {
			return err
		}
		id := digest.FromString(key).Encoded() // no random one: it shows in the provenance
		in.stores[id] = store
		in.attrs["context:"+key] = "oci-layout://" + id + "@" + ref.String()
		return nil
	case strings.HasPrefix(value, "docker-image://"), strings.HasPrefix(value, targetPrefix), IsURL(value), isGit(value) && !isFolder(value):
		in.attrs["context:"+key] = value
		return checkGit(value)
	case !isFolder(value):
		return fmt.Errorf("%q is neither a folder, a git repository, a URL, docker-image://NAME nor oci-layout://FOLDER", value)
	}
	dir, err := filepath.Abs(value)
	if err != nil {
		return err
	}
	mount := namedContext + key // no name of the frontend's own
	in.attrs["context:"+key] = "local:" + mount
	in.attrs["sharedkey:localdir:"+key] = dir
	return in.mount(mount, dir, fail)
}

// contextName is a name as the frontend looks it up: that of an image, without the
// default tag.
func contextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
