package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/distribution/reference"
	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// Origin finds where the blobs of the image with a full name come from: a Source
// that opens any of them by its digest, and has no Descriptor worth anything. If
// its error, or that of Open, is an [fs.ErrNotExist], the blob is not to be had
// there for good; any other error may be gone tomorrow.
type Origin = func(ctx context.Context, name string) (Source, error)

// RepairOptions say what Repair may do.
type RepairOptions struct {
	CheckOptions
	// Origin is asked for what is broken. Nil: it is had nowhere.
	Origin Origin
	// Told learns of each change when it is done, and of what could not be had.
	// It is not called concurrently, and may be nil.
	Told func(Mended)
}

// MendKind tells what Repair did.
type MendKind string

// What Repair does.
const (
	Fetched  MendKind = "fetched"   // a blob, anew
	Unhad    MendKind = "not had"   // a blob that an origin may still have, but could not be asked for; nothing was dropped
	Dropped  MendKind = "dropped"   // a name, or a platform of an index, what it needs being nowhere
	Deleted  MendKind = "deleted"   // a damaged blob that no image needs
	Rebuilt  MendKind = "rebuilt"   // index.json; Path is where the old one was put aside
	Regained MendKind = "recovered" // an image that index.json had lost, without its name
)

// Mended is one thing that Repair did, or could not do.
type Mended struct {
	Kind   MendKind
	Part   string    // as of a Problem
	Digest v1.Hash   // of a blob, or of the image
	Path   string    // of a file, relative to the store's folder
	Images []Subject // whose it is, or was
	From   string    // the name under which it was fetched
	Err    error     // why
}

// Repair mends what [Store.Check] finds broken, and returns what is so in the end.
//
// A blob that is missing or damaged is read anew from the origin of the names
// that need it, verified, and put in its place. What no origin has any more is
// dropped: of an index the platform, else the image with all its names. As long
// as an origin can't be asked nothing is dropped. An index.json that is no index
// is put aside and made again: from the entries in it that can be read, and from
// all whole images among the blobs, which have no names then. Nothing is deleted
// that is whole, but the manifest of a platform that is dropped.
//
// It waits until nobody else uses the store, and nobody can until it is done.
func (s *Store) Repair(ctx context.Context, o RepairOptions) (*Report, error) {
	r := &repairer{
		checker: checker{store: s, options: o.CheckOptions, whole: map[v1.Hash]bool{}},
		origin:  o.Origin, told: o.Told,
		tried: map[v1.Hash]bool{}, later: map[v1.Hash]bool{},
	}
	if r.told == nil {
		r.told = func(Mended) {}
	}
	if r.origin == nil {
		r.origin = func(context.Context, string) (Source, error) { return nil, fs.ErrNotExist }
	}
	report, err := r.check(ctx)
	if err != nil || len(report.Broken()) == 0 {
		return report, err
	}
	unlock, err := s.lock(ctx, s.path(storeLock), (*flock.Flock).TryLock,
		fmt.Sprintf("waiting for other processes that use the store %q", s.dir))
	if err != nil {
		return nil, err
	}
	defer unlock()
	return r.report, r.mend(ctx)
}

// repairer is one Repair.
type repairer struct {
	checker
	origin Origin
	told   func(Mended)
	tried  map[v1.Hash]bool // blobs that were asked for
	later  map[v1.Hash]bool // of these, those that may be had another time
}

// mend goes round until nothing changes any more: below a manifest that came
// back there may be more to fetch, and below one that went less to want.
func (r *repairer) mend(ctx context.Context) error {
	r.quiet, r.again = true, true
	if err := r.listIdle(); err != nil {
		return err
	}
	if err := r.rebuildIndex(ctx); err != nil {
		return err
	}
	for {
		if err := r.round(ctx); err != nil {
			return err
		}
		changed, err := r.fetchBroken(ctx)
		if err == nil && !changed {
			changed, err = r.drop(ctx)
		}
		if err != nil || !changed {
			return err
		}
	}
}

// fetchBroken asks once for every blob that is missing or damaged.
func (r *repairer) fetchBroken(ctx context.Context) (changed bool, err error) {
	for _, p := range r.report.Broken() {
		n := r.survey.needs[p.Digest]
		if n == nil || p.Kind != Missing && p.Kind != Damaged || r.tried[p.Digest] {
			continue
		}
		r.tried[p.Digest] = true
		bring := func(src Source) error { return r.bring(ctx, src, n.desc) }
		if p.Part == platformsPart {
			bring = func(src Source) error { return r.bringPlatform(ctx, src, n.desc) }
		}
		from, err := r.fetch(ctx, n, bring)
		var lost *originError
		switch {
		case err == nil:
			changed = true
			r.told(Mended{Kind: Fetched, Part: p.Part, Digest: p.Digest, Path: p.Path, Images: p.Images, From: from})
		case !errors.As(err, &lost):
			return changed, err
		case !lost.forGood:
			r.later[p.Digest] = true
			r.told(Mended{Kind: Unhad, Part: p.Part, Digest: p.Digest, Path: p.Path, Images: p.Images, Err: lost.err})
		}
	}
	return changed, nil
}

// originError says that a blob could not be had.
type originError struct {
	err     error
	forGood bool // all origins were asked, and none has it
}

func (e *originError) Error() string { return e.err.Error() }
func (e *originError) Unwrap() error { return e.err }

// fetch asks the origins of all who need n, each repository once.
func (r *repairer) fetch(ctx context.Context, n *need, bring func(Source) error) (from string, err error) {
	lost := &originError{err: &MissingError{Digest: n.desc.Digest}, forGood: true}
	for _, name := range origins(n.users) {
		src, err := r.origin(ctx, name)
		if err != nil {
			err = &sourceError{err}
		} else {
			err = bring(src)
		}
		if err == nil {
			return name, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		var theirs *sourceError
		var wrong *DigestError
		switch {
		case errors.As(err, &theirs) && errors.Is(theirs.err, fs.ErrNotExist):
		case errors.As(err, &theirs), errors.As(err, &wrong):
			lost.err, lost.forGood = err, false
		default:
			return "", err // something on this side
		}
	}
	return "", lost
}

// origins are the names of the users, one of each repository.
func origins(users []user) []string {
	var names []string
	seen := map[string]bool{}
	for _, u := range users {
		named, err := reference.ParseNormalizedNamed(u.root.name)
		if err != nil || u.root.name == "" || seen[named.Name()] {
			continue
		}
		seen[named.Name()] = true
		names = append(names, u.root.name)
	}
	return names
}

// bring reads one blob anew.
func (r *repairer) bring(ctx context.Context, src Source, d v1.Descriptor) error {
	if err := os.MkdirAll(r.store.path(ingestDir), 0o755); err != nil {
		return err
	}
	l := newLanes()
	looking, stop := context.WithCancel(ctx)
	defer stop()
	go l.run(looking)
	if err := r.store.fetchAnew(ctx, src, d, l, nil); err != nil {
		return err
	}
	return r.store.syncBlobs([]v1.Descriptor{d})
}

// rooted is a Source of one image.
type rooted struct {
	Source
	root v1.Descriptor
}

func (r rooted) Descriptor() v1.Descriptor { return r.root }

// bringPlatform fills an index that has lost all of its images, as a pull would.
func (r *repairer) bringPlatform(ctx context.Context, src Source, root v1.Descriptor) error {
	p := &putter{store: r.store, src: rooted{src, root}, docs: map[v1.Hash][]byte{}}
	t, err := p.plan(ctx, []v1.Platform{platform.Default()})
	if errors.As(err, new(*platform.NoMatchError)) {
		t, err = p.plan(ctx, nil)
	}
	if err != nil {
		return err
	}
	return p.fetch(ctx, t, nil)
}

// drop takes away what can't be mended.
func (r *repairer) drop(ctx context.Context) (changed bool, err error) {
	images, manifests := map[v1.Hash]error{}, map[v1.Hash]bool{}
	badEntries := false
	for _, p := range r.report.Broken() {
		n := r.survey.needs[p.Digest]
		switch {
		case p.Part == entryPart:
			badEntries = true
		case p.Kind != Missing && p.Kind != Damaged, r.later[p.Digest]:
		case n == nil && p.Kind == Damaged:
			if err := os.Remove(r.store.BlobPath(p.Digest)); err != nil {
				return changed, err
			}
			changed = true
			r.told(Mended{Kind: Deleted, Part: p.Part, Digest: p.Digest, Path: p.Path, Err: p.Err})
		case n != nil:
			r.condemn(p, n, images, manifests)
		}
	}
	for h := range manifests {
		err := os.Remove(r.store.BlobPath(h))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return changed, err
		}
		changed = changed || err == nil
	}
	if len(images) == 0 && !badEntries {
		return changed, nil
	}
	return true, r.dropEntries(ctx, images)
}

// condemn notes what goes because n can't be had: the platforms that need it, or
// whole images.
func (r *repairer) condemn(p Problem, n *need, images map[v1.Hash]error, manifests map[v1.Hash]bool) {
	why := p.Err
	if why == nil {
		why = &MissingError{Digest: p.Digest}
	}
	for _, u := range n.users {
		if u.via == u.root.desc.Digest {
			images[u.via] = why
			continue
		}
		if !manifests[u.via] {
			r.told(Mended{Kind: Dropped, Part: "platform", Digest: u.via, Images: []Subject{subject(u)}, Err: why})
		}
		manifests[u.via] = true
	}
}

// dropEntries takes images out of index.json, and entries that describe none.
func (r *repairer) dropEntries(ctx context.Context, images map[v1.Hash]error) error {
	var dropped []Mended
	err := r.store.edit(ctx, func(x *index) (bool, error) {
		x.entries = slices.DeleteFunc(x.entries, func(e *entry) bool {
			img := r.store.image(e.listing())
			m := Mended{Kind: Dropped, Part: entryPart}
			switch {
			case img == nil || checkDescriptor(img.desc, indexFile) != nil:
				p := entryProblem(e.listing())
				m.Images, m.Err = p.Images, p.Err
			case images[img.desc.Digest] != nil:
				m.Part, m.Digest, m.Err = "image", img.desc.Digest, images[img.desc.Digest]
				m.Images = []Subject{{Name: e.listing().called(), ID: img.desc.Digest}}
			default:
				return false
			}
			dropped = append(dropped, m)
			return true
		})
		return len(dropped) > 0, nil
	})
	if err != nil {
		return err
	}
	for _, m := range dropped {
		r.told(m)
	}
	return nil
}
