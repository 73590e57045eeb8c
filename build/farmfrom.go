//go:build linux

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	digest "github.com/opencontainers/go-digest"

	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/platform"
)

// registryTime bounds how long a registry is asked whether it has what the store has.
const registryTime = 5 * time.Second

// offered is an image of the store that a Dockerfile builds on: FROM looks in the store
// first, on a farm too.
type offered struct {
	key      string // what the frontend knows it by
	platform string
	value    string // what the frontend is to take
	send     bool   // its blobs come from the store; else the registry has them
}

// offer tells the frontend on the part's node of the images that the store has: by their
// digests where the registry has these, else they are sent from here.
func (f *farmed) offer(ctx context.Context, p farm.Part, opt *client.SolveOpt) error {
	if f.request.Pull || p.Conn.Node.Endpoint == farm.Local { // this process looks in the store itself
		return nil
	}
	for _, name := range f.bases {
		for _, want := range offeredPlatforms(p) {
			o, err := f.offered(ctx, name, want)
			if err != nil {
				return err
			}
			if o == nil {
				continue
			}
			opt.FrontendAttrs["context:"+o.key+"::"+o.platform] = o.value
			if o.send {
				opt.OCIStores[storeID] = layoutContent{dir: f.storeDir()}
			}
		}
	}
	return nil
}

// storeID is what nodes know the image store by.
var storeID = digest.FromString("wherry").Encoded()

// offeredPlatforms are those that FROM may be about on a node: what is built, and with
// --platform=$BUILDPLATFORM what the node is.
func offeredPlatforms(p farm.Part) []v1.Platform {
	list := slices.Clone(p.Platforms)
	if own := p.Conn.Platforms(); len(own) > 0 && !slices.ContainsFunc(list, own[0].Equals) {
		list = append(list, own[0])
	}
	return list
}

// offered is nil if the store does not have the image for the platform.
func (f *farmed) offered(ctx context.Context, name reference.Named, want v1.Platform) (*offered, error) {
	d, err := f.store.Lookup(ctx, name, want)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, nil //nolint:nilnil // the registry is asked then, by the node
	}
	key, err := contextName(name.String())
	if err != nil {
		return nil, err
	}
	o := &offered{key: key, platform: platform.Format(want)}
	if o.send = !f.published(ctx, name, d.Digest); !o.send {
		o.value = "docker-image://" + reference.TrimNamed(name).String() + "@" + d.Digest.String()
		return o, nil
	}
	o.value = "oci-layout://" + storeID + "@" + d.Digest.String()
	f.tellOnce(fmt.Sprintf("FROM %s (%s) is sent from the store", reference.FamiliarString(name), o.platform))
	return o, nil
}

// published says whether the registry has what the store has under the name. It is asked
// once.
func (f *farmed) published(ctx context.Context, name reference.Named, h v1.Hash) bool {
	d, err := digest.Parse(h.String())
	if err != nil {
		return false
	}
	ref, err := reference.WithDigest(reference.TrimNamed(name), d)
	if err != nil {
		return false
	}
	f.onFarm.asked.Lock()
	defer f.onFarm.asked.Unlock()
	known, ok := f.has[ref.String()]
	if !ok {
		ctx, cancel := context.WithTimeout(ctx, registryTime)
		defer cancel()
		_, _, err := f.farm.Registries.Manifest(ctx, ref)
		known = err == nil && !isLoopback(reference.Domain(name)) // this machine's is no node's
		f.has[ref.String()] = known
	}
	return known
}

func (b *onFarm) tellOnce(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.told[line] {
		b.say(b.farm.Told, line)
	}
	b.told[line] = true
}

// storeDir is the folder of the image store.
func (f *farmed) storeDir() string {
	blob := f.store.BlobPath(v1.Hash{Algorithm: "sha256", Hex: "0"})
	return filepath.Dir(filepath.Dir(filepath.Dir(blob)))
}

// findBases finds the images that a Dockerfile names, if it is here and can be read before
// the build. What it gets wrong the frontend tells.
func findBases(src *sources, kept *spooled, r Request) []reference.Named {
	text, err := src.text, error(nil)
	switch {
	case text != nil:
	case src.dockerfile != "":
		text, err = readDockerfile(filepath.Join(src.dockerfile, src.filename))
	case kept != nil:
		text, err = kept.find(src.filename)
	}
	if err != nil {
		return nil
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil
	}
	stages, args, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil
	}
	found := map[string]reference.Named{}
	lex, env := shell.NewLex(parsed.EscapeToken), metaArgs(args, r.BuildArgs)
	for i, name := range baseNames(stages) {
		if known := slices.ContainsFunc(stages[:min(i.stage, len(stages))], func(s instructions.Stage) bool { return s.Name == name }); known {
			continue
		}
		word, _, err := lex.ProcessWord(name, env)
		if err != nil {
			continue
		}
		ref, err := reference.ParseNormalizedNamed(word)
		if err != nil || word == "scratch" || isNamedContext(r, ref) {
			continue
		}
		found[ref.String()] = reference.TagNameOnly(ref)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b reference.Named) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
}

// place is where in a Dockerfile an image is named.
type place struct{ stage, command int }

// baseNames are what FROM and COPY --from say.
func baseNames(stages []instructions.Stage) map[place]string {
	names := map[place]string{}
	for i, s := range stages {
		names[place{i, 0}] = s.BaseName
		for j, c := range s.Commands {
			copied, ok := c.(*instructions.CopyCommand)
			if !ok || copied.From == "" {
				continue
			}
			if _, err := strconv.Atoi(copied.From); err != nil {
				names[place{i, j + 1}] = copied.From
			}
		}
	}
	return names
}

// metaArgs are the values that FROM can use.
func metaArgs(args []instructions.ArgCommand, given map[string]string) shell.EnvGetter {
	var env []string
	for _, a := range args {
		for _, one := range a.Args {
			value, ok := given[one.Key]
			if !ok && one.Value != nil {
				value = *one.Value
			}
			env = append(env, one.Key+"="+value)
		}
	}
	return shell.EnvsFromSlice(env)
}

func isNamedContext(r Request, ref reference.Named) bool {
	want, err := contextName(ref.String())
	for name := range r.Contexts {
		if key, keyErr := contextName(name); err == nil && keyErr == nil && key == want {
			return true
		}
	}
	return err != nil
}

// readDockerfile reads a file that is as long as a Dockerfile may be.
func readDockerfile(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s := &sources{}
	err = s.readText(f, path)
	return s.text, err
}
