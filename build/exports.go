//go:build linux

package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/client"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/engine"
)

// exports are the outputs of one build, in the words of BuildKit's client, and the files
// among them.
type exports struct {
	entries []client.ExportEntry
	files   []*destination
	own     *ownEngine // nil: another process runs it
}

// newExports fails if a folder can't be made where an output wants it: nobody should wait for a build to hear that.
func newExports(r Request, own *ownEngine) (*exports, error) {
	outputs := r.Outputs
	if len(outputs) == 0 {
		outputs = []Output{{Type: OutputImage}}
	}
	x := &exports{own: own}
	for _, o := range outputs {
		if o.isFolder() && !o.toStore() {
			if err := folderPossible(o.Dest); err != nil {
				return nil, fmt.Errorf("output %q: %w", o.Dest, err)
			}
		}
		if o.Type != OutputCacheOnly {
			x.entries = append(x.entries, x.entry(o, r))
		}
	}
	return x, nil
}

// folderPossible says why there can't be a folder that may be written to.
func folderPossible(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	switch {
	case err != nil:
		return cause(err)
	case !info.IsDir():
		return errors.New("not a folder")
	}
	return unix.Access(dir, unix.W_OK|unix.X_OK)
}

func (x *exports) entry(o Output, r Request) client.ExportEntry {
	e := client.ExportEntry{Type: o.Type, Attrs: maps.Clone(o.Attrs)}
	if e.Attrs == nil {
		e.Attrs = map[string]string{}
	}
	if o.toStore() {
		e.Type = client.ExporterImage
		delete(e.Attrs, "push") // from the store, by who asked for it
	}
	if r.Reproducible {
		e.Attrs[engine.AttrReproducible] = "true"
	}
	if isImageExporter(e.Type) {
		addImageAttrs(e.Attrs, r)
	}
	if e.Type == client.ExporterImage && e.Attrs["oci-mediatypes"] == "" {
		e.Attrs["oci-mediatypes"] = "true"
	}
	switch {
	case o.toStore():
	case o.isFolder():
		e.OutputDir = o.Dest
	case o.Dest == "-":
		x.write(&e, func() (io.WriteCloser, error) { return unclosed{r.Stdout}, nil })
	default:
		d := &destination{path: o.Dest}
		x.files = append(x.files, d)
		x.write(&e, d.open)
	}
	return e
}

// write has an entry write to what open returns: an archive directly, if the engine is in
// this process.
func (x *exports) write(e *client.ExportEntry, open func() (io.WriteCloser, error)) {
	e.Output = func(map[string]string) (io.WriteCloser, error) { return open() }
	if x.own != nil && (e.Type == client.ExporterOCI || e.Type == client.ExporterDocker) {
		e.Attrs[engine.AttrFile] = x.own.ShareFile(open)
	}
}

func isImageExporter(kind string) bool {
	return kind == client.ExporterImage || kind == client.ExporterOCI || kind == client.ExporterDocker
}

// addImageAttrs adds to what an output says itself the names and annotations of the request.
func addImageAttrs(attrs map[string]string, r Request) {
	if attrs["name"] == "" || len(r.Names) > 0 {
		attrs["name"] = joinNames(r)
	}
	for _, a := range r.Annotations {
		key, value := a.attr()
		attrs[key] = value
	}
	if r.Reproducible {
		attrs["rewrite-timestamp"] = "true"
	}
}

func joinNames(r Request) string {
	names := make([]string, len(r.Names))
	for i, n := range r.Names {
		names[i] = n.String()
	}
	return strings.Join(names, ",")
}

func (x *exports) keep() error {
	for _, f := range x.files {
		if err := f.keep(); err != nil {
			return err
		}
	}
	return nil
}

func (x *exports) discard() {
	for _, f := range x.files {
		f.discard()
	}
}
