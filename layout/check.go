package layout

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// CheckOptions say what of a store is checked.
type CheckOptions struct {
	// Refs are images as [Store.Find] reads them. Nil means the whole store:
	// every entry, every blob, and what else lies in its folder.
	Refs []string
	// Deep also unpacks every layer and compares its content with the diff ID in
	// the image's config. That takes several times as long.
	Deep bool
	// Progress is told how many of the bytes that are to be read have been. It
	// must be safe for concurrent calls, and may be nil.
	Progress func(read, total int64)
}

// Report is what a check found.
type Report struct {
	Names    int       // entries of index.json that were checked
	Blobs    int       // blobs that were read and hashed (by a Repair once), manifests and configs included
	Bytes    int64     // their bytes
	Problems []Problem // what is broken, and then what is only worth knowing
	// Busy says that other processes were adding blobs, or may have been, so that
	// what nobody needs could not be told from what somebody is about to name.
	Busy bool
}

// Broken returns the problems that make an image, or the store, unusable.
func (r *Report) Broken() []Problem {
	return slices.DeleteFunc(slices.Clone(r.Problems), func(p Problem) bool { return !p.Kind.Broken() })
}

// ProblemKind tells problems apart.
type ProblemKind string

// The kinds of problems. The last three harm nobody.
const (
	Missing    ProblemKind = "missing"    // a blob that an image needs is not there
	Damaged    ProblemKind = "damaged"    // a blob has other bytes than its digest names
	Unreadable ProblemKind = "unreadable" // a file that the system does not let us read
	Invalid    ProblemKind = "invalid"    // a manifest, config, entry or index.json that cannot be understood
	Unequal    ProblemKind = "unequal"    // a layer whose content is not what the config says

	Garbage  ProblemKind = "garbage"  // a whole blob that no image needs; not looked for where a manifest is broken
	Leftover ProblemKind = "leftover" // an unfinished blob that a transfer left, to be resumed or collected
	Foreign  ProblemKind = "foreign"  // a file that does not belong into a store
)

// Broken reports whether something has to be done about such a problem.
func (k ProblemKind) Broken() bool { return k != Garbage && k != Leftover && k != Foreign }

// Problem is one thing that is wrong with a store.
type Problem struct {
	Kind   ProblemKind
	Part   string    // "layer", "config", "manifest", "index", "blob", "entry", "file"; "platforms" of an index of which there are none
	Digest v1.Hash   // of the blob; the zero Hash where there is none
	Path   string    // slash-separated, relative to the store's folder
	Size   int64     // bytes that the blob should have, or that the file has
	Images []Subject // whose it is, in index.json's order; none for what nobody needs
	Err    error     // what was found; nil where Kind says all
}

// Subject is an image that a problem touches.
type Subject struct {
	Name     string  // full name; "" for an untagged entry
	ID       v1.Hash // what its entry points at
	Platform string  // of the manifest below an index that is touched; "" for all of it
}

// Check verifies the store without changing it: index.json and its entries;
// that every manifest, index and config is there, parses, and is what its
// descriptor says; that every layer is there, and is by its digest the one that
// is meant. Every blob is read, on all processors. Of an index only those
// platforms are wanted of which the store has the config, or a layer that no
// other of its platforms has.
//
// What is wrong comes in the Report. An error is a check that was not finished,
// [*NotFoundError] and [*AmbiguousError] for CheckOptions.Refs among them.
//
// Nothing is collected meanwhile. A store that may only be read, and one that
// another tool made, can be checked as well.
func (s *Store) Check(ctx context.Context, o CheckOptions) (*Report, error) {
	c := &checker{store: s, options: o, whole: map[v1.Hash]bool{}}
	return c.check(ctx)
}

// checker is one Check, or one Repair, which checks again and again.
type checker struct {
	store   *Store
	options CheckOptions
	whole   map[v1.Hash]bool // blobs hashed by an earlier round

	again  bool             // images that were there may have been dropped
	quiet  bool             // nobody was adding blobs when idle was made
	idle   map[v1.Hash]bool // the blobs that were there then
	report *Report
	survey *survey
}

// check without a lock, where none can be had, may have seen an image that was
// being removed: what it finds broken is looked at again.
func (c *checker) check(ctx context.Context) (*Report, error) {
	for try := 1; ; try++ {
		if err := c.lookAround(); err != nil {
			return nil, err
		}
		release, locked, err := c.store.shareToRead(ctx)
		if err != nil {
			return nil, err
		}
		before, _ := c.store.readIndexFile() // its errors are found again
		err = c.round(ctx)
		release()
		if err != nil {
			return nil, err
		}
		after, _ := c.store.readIndexFile()
		if locked || try == maxAttempts || len(c.report.Broken()) == 0 || bytes.Equal(before, after) {
			return c.report, nil
		}
	}
}

// shareToRead holds the store against collectors. It creates no lock: where
// there is none, or none that we may open, it returns without.
func (s *Store) shareToRead(ctx context.Context) (release func(), locked bool, err error) {
	l := flock.New(s.path(storeLock), flock.SetFlag(os.O_RDONLY))
	if got, err := l.TryRLock(); err != nil {
		return func() {}, false, nil //nolint:nilerr // nobody's lock, or not ours to take
	} else if got {
		return func() { _ = l.Unlock() }, true, nil
	}
	release, err = s.share(ctx)
	return release, err == nil, err
}

// lookAround lists the blobs at a moment when nobody is adding any: of these,
// those that no image needs are garbage. With others at work nobody can tell.
func (c *checker) lookAround() error {
	l := flock.New(c.store.path(storeLock), flock.SetFlag(os.O_RDONLY))
	got, err := l.TryLock()
	defer func() { _ = l.Unlock() }()
	// Without a lock file there never was a writer. One that we may not open
	// belongs to somebody who may be at work.
	c.quiet = got || errors.Is(err, fs.ErrNotExist)
	if !c.quiet {
		return nil
	}
	return c.listIdle()
}

func (c *checker) listIdle() error {
	files, err := c.store.blobFiles()
	c.idle = make(map[v1.Hash]bool, len(files))
	for _, f := range files {
		c.idle[f.hash] = true
	}
	return err
}

// round is one check of everything that is asked for.
func (c *checker) round(ctx context.Context) error {
	c.report = &Report{Busy: !c.quiet}
	c.survey = newSurvey(c.store)
	roots, err := c.roots()
	if err != nil {
		return err
	}
	if err := c.survey.explore(ctx, roots); err != nil {
		return err
	}
	c.survey.judge()
	var extra []blobFile
	if c.options.Refs == nil {
		extra = c.strays()
	}
	if err := c.hashAll(ctx, extra); err != nil {
		return err
	}
	c.report.Problems = append(c.report.Problems, c.survey.problems...)
	blind := slices.ContainsFunc(c.report.Problems, hidesNeeds)
	c.report.Problems = slices.DeleteFunc(c.report.Problems, func(p Problem) bool {
		return p.Kind == Garbage && (blind || !c.whole[p.Digest]) // damaged, which was said already
	})
	slices.SortStableFunc(c.report.Problems, func(a, b Problem) int {
		return cmp.Compare(boolToInt(b.Kind.Broken()), boolToInt(a.Kind.Broken()))
	})
	return nil
}

// hidesNeeds: below a manifest that can't be read may be what now looks as if
// nobody needed it.
func hidesNeeds(p Problem) bool {
	return p.Kind.Broken() && (p.Path == indexFile || p.Part == "manifest" || p.Part == "index")
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// brokenIndex is how index.json is called that a repair has put aside.
const brokenIndex = indexFile + ".broken-"

// roots are the entries to check.
func (c *checker) roots() ([]*Image, error) {
	if c.options.Refs != nil {
		return c.chosen()
	}
	entries, err := c.store.readIndex()
	if err != nil {
		c.report.Problems = append(c.report.Problems, indexProblem(err))
		return nil, nil
	}
	c.report.Names = len(entries)
	var roots []*Image
	for i := range entries {
		img := c.store.image(&entries[i])
		if img == nil || checkDescriptor(img.desc, indexFile) != nil {
			c.report.Problems = append(c.report.Problems, entryProblem(&entries[i]))
			continue
		}
		if draft := entries[i].Annotations.Draft; draft != "" {
			img.name = draft
			c.survey.drafts[img] = keptBeside(entries[i].Annotations.Members)
		}
		roots = append(roots, img)
	}
	return roots, nil
}

func indexProblem(err error) Problem {
	kind := Invalid
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = Missing
	case errors.Is(err, fs.ErrPermission):
		kind = Unreadable
	}
	return Problem{Kind: kind, Part: "file", Path: indexFile, Err: err}
}

// entryPart is an element of index.json.
const entryPart = "entry"

// called is what people know an entry by; "" if it has no name at all.
func (e *listed) called() string {
	name, bare := entryName(e.Annotations.Name, e.Annotations.RefName)
	return cmp.Or(e.Annotations.Draft, name, bare)
}

func entryProblem(e *listed) Problem {
	return Problem{
		Kind: Invalid, Part: entryPart, Path: indexFile, Images: []Subject{{Name: e.called()}},
		Err: invalid(indexFile, "digest %q and size %d describe no image", e.Digest, e.Size),
	}
}

func (c *checker) chosen() ([]*Image, error) {
	var roots []*Image
	for _, ref := range c.options.Refs {
		found, err := c.store.Find(ref)
		if c.again && errors.As(err, new(*NotFoundError)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, img := range found {
			if !slices.ContainsFunc(roots, func(o *Image) bool { return o.desc.Digest == img.desc.Digest && o.name == img.name }) {
				roots = append(roots, img)
			}
		}
	}
	c.report.Names = len(roots)
	return roots, nil
}
