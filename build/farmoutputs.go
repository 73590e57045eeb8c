//go:build linux

package build

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/build/farm"
)

// platformSplit gives each platform a folder of its own in a folder or tar.
const platformSplit = "platform-split"

// farmOutputs are the outputs of a request on a farm.
type farmOutputs struct {
	request    Request
	several    bool              // more than one node makes it
	image      map[string]string // attributes of the image; nil: there is to be none
	keep       bool              // it is to be in the image store
	push       bool
	rest       []Output // archives and folders
	landing    *landing
	tars       int
	byPlatform bool // folders and tars have one for each platform
	written    []*destination
}

func newFarmOutputs(f *farmed, several bool) (o *farmOutputs, err error) {
	r := f.request
	o = &farmOutputs{request: r, several: several, push: r.Push, byPlatform: len(f.wanted) > 1}
	o.sort()
	if several {
		if err := o.checkSeveral(); err != nil {
			return nil, err
		}
	}
	if _, err := newExports(Request{Outputs: o.rest}, nil); len(o.rest) > 0 && err != nil { // folders that can't be made
		return nil, err
	}
	o.landing, err = newLanding(f.store, f.state)
	return o, err
}

// sort tells the image from the other outputs, and finds out what becomes of it.
func (o *farmOutputs) sort() {
	r := o.request
	o.keep = r.Keep || len(r.Outputs) == 0 && !r.Push
	if o.keep || r.Push {
		o.image = map[string]string{}
	}
	for _, out := range r.Outputs {
		if !out.toStore() {
			o.rest = append(o.rest, out)
			continue
		}
		if o.image == nil {
			o.image = map[string]string{}
		}
		maps.Copy(o.image, out.Attrs)
		o.push = o.push || out.Pushed()
		o.keep = o.keep || !out.Pushed() && !r.Push
	}
	o.rest = slices.DeleteFunc(o.rest, func(out Output) bool { return out.Type == OutputCacheOnly })
	for _, key := range []string{"push", "push-by-digest", "name"} {
		delete(o.image, key)
	}
}

// split is called when what one node was to make is made by several.
func (o *farmOutputs) split() error {
	o.several = true
	return o.checkSeveral()
}

// checkSeveral refuses what can't be put together.
func (o *farmOutputs) checkSeveral() error {
	for _, out := range o.rest {
		switch {
		case out.Type == OutputDocker:
			return fmt.Errorf("output %q: type=docker holds one platform, and several nodes build several", out.Dest)
		case out.Type == OutputLocal && out.Attrs["mode"] == "delete":
			return fmt.Errorf("output %q: mode=delete is not possible where several nodes write", out.Dest)
		}
	}
	for _, c := range o.request.CacheTo {
		if !slices.Contains([]string{"inline", "local", "registry"}, c.Type) {
			return fmt.Errorf("a cache of type %s is not possible where several nodes export theirs", c.Type)
		}
	}
	return nil
}

func (o *farmOutputs) close() error {
	for _, d := range o.written {
		d.discard()
	}
	if o.landing == nil {
		return nil
	}
	return o.landing.close()
}

func (o *farmOutputs) pushes() bool { return o.push }

// lands says whether an image has to come here from a node that pushes, or does not.
func (o *farmOutputs) lands(push bool) bool {
	return o.image != nil && (o.keep || !push) || slices.ContainsFunc(o.rest, o.joined)
}

// together says whether there is an image that is put together here.
func (o *farmOutputs) together() bool { return o.push || o.lands(o.push) }

// joined says whether an output is made here of an image that has landed.
func (o *farmOutputs) joined(out Output) bool {
	return out.Type == OutputOCI && (o.several || out.isFolder())
}

// partExports are what one node exports.
type partExports struct {
	*exports
	tar string
}

func (o *farmOutputs) exports(p farm.Part, push bool) *partExports {
	x := &partExports{exports: &exports{}}
	r := o.partRequest(p)
	if push {
		attrs := o.imageAttrs(r)
		attrs["push"], attrs["push-by-digest"] = "true", "true"
		attrs["name"] = strings.Join(repositories(o.request.Names), ",")
		x.entries = append(x.entries, client.ExportEntry{Type: client.ExporterImage, Attrs: attrs})
	}
	if o.lands(push) {
		attrs := o.imageAttrs(r)
		attrs["tar"] = "false"
		x.entries = append(x.entries, client.ExportEntry{Type: client.ExporterOCI, Attrs: attrs, OutputStore: o.landing})
	}
	for _, out := range o.rest {
		if o.joined(out) {
			continue
		}
		if out.Type == OutputLocal {
			out = o.splitAttrs(out)
		}
		if out.Type == OutputTar && o.several {
			o.tars++
			x.tar = filepath.Join(o.landing.dir, fmt.Sprintf("%d-%s.tar", o.tars, suffix(p.Platforms)))
			out.Dest = x.tar
		}
		x.entries = append(x.entries, x.entry(out, r))
	}
	return x
}

// imageAttrs are the attributes of the image that a node exports: what the request and its
// outputs say. With the same ones each export has the same digest.
func (o *farmOutputs) imageAttrs(r Request) map[string]string {
	attrs := maps.Clone(o.image)
	if attrs == nil {
		attrs = map[string]string{}
		for _, out := range o.rest {
			if o.joined(out) {
				maps.Copy(attrs, out.Attrs)
			}
		}
	}
	addImageAttrs(attrs, r)
	delete(attrs, "name")
	if attrs["oci-mediatypes"] == "" {
		attrs["oci-mediatypes"] = "true"
	}
	return attrs
}

// partRequest is the request as a node gets it: without the annotations that are for the
// joined index.
func (o *farmOutputs) partRequest(p farm.Part) Request {
	r := o.request
	if !o.several {
		return r
	}
	r.Annotations = slices.DeleteFunc(slices.Clone(r.Annotations), func(a Annotation) bool {
		return a.key.Type != exptypes.AnnotationManifest || a.key.Platform != nil && !p.Has(*a.key.Platform)
	})
	return r
}

func (o *farmOutputs) splitAttrs(out Output) Output {
	if o.byPlatform && out.Attrs[platformSplit] == "" {
		out.Attrs = maps.Clone(out.Attrs)
		if out.Attrs == nil {
			out.Attrs = map[string]string{}
		}
		out.Attrs[platformSplit] = "true"
	}
	return out
}

// caches gives each node a cache of its own where several export theirs.
func (o *farmOutputs) caches(p farm.Part, opt client.SolveOpt) (from, to []client.CacheOptionsEntry) {
	if !o.several {
		return opt.CacheImports, opt.CacheExports
	}
	for _, c := range cacheExports(o.request) {
		to = append(to, cacheOf(c, p))
	}
	from = append(from, cacheImports(Request{CacheFrom: o.request.CacheFrom})...)
	for _, c := range o.request.CacheFrom {
		own := cacheOf(client.CacheOptionsEntry(c), p)
		if own.Type == "local" && !exists(filepath.Join(own.Attrs["src"], ocispecs.ImageIndexFile)) {
			continue
		}
		if own.Type == "local" || own.Type == "registry" {
			from = append(from, own)
		}
	}
	return from, to
}

// cacheOf is a node's part of a cache: a folder within the folder, or a tag with the
// platforms behind it.
func cacheOf(c client.CacheOptionsEntry, p farm.Part) client.CacheOptionsEntry {
	c.Attrs = maps.Clone(c.Attrs)
	of := suffix(p.Platforms)
	for _, key := range []string{"src", "dest"} {
		if c.Attrs[key] != "" && c.Type == "local" {
			c.Attrs[key] = filepath.Join(c.Attrs[key], of)
		}
	}
	if ref, err := reference.ParseNormalizedNamed(c.Attrs["ref"]); err == nil && c.Type == "registry" {
		if tagged, ok := reference.TagNameOnly(ref).(reference.Tagged); ok {
			c.Attrs["ref"] = reference.TrimNamed(ref).String() + ":" + tagged.Tag() + "-" + of
		}
	}
	return c
}
