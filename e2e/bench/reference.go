package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/e2e/base"
)

// referenceDockerfile has what makes real builds slow: many small files, a large context,
// a copy of a part of it, stages that are copied from, and large layers to compress.
const referenceDockerfile = `ARG BASE
FROM ${BASE} AS files
RUN mkdir /small && cd /small && i=0; while [ $i -lt 10000 ]; do echo "file $i" > /small/$i; i=$((i+1)); done

FROM ${BASE} AS tree
COPY tree /tree
RUN mkdir /part && for d in 0 1 2 3 4 5 6 7 8 9; do cp -r /tree/d$d /part; done

FROM ${BASE}
COPY --from=files /small /small
COPY --from=tree /part /part
COPY tree /tree
CMD ["sh"]
`

// builder is a program that builds an image into an archive, and keeps a cache.
type builder interface {
	// start makes it ready, with an empty cache in dir. It is not timed.
	start(ctx context.Context, dir string) error
	// archive is a build of a folder, on a base image, into a file.
	archive(project, from, file string) contender
	stop()
}

// referenceBuild is a build of some size into an archive, with an empty cache and with all
// in the cache. Each run has a folder of its own, which stays until the end: where thousands
// of files were just deleted, making some takes longer. That is 6 GB a run.
type referenceBuild struct {
	*bench
	project, from string
	races         []*race
}

func (b *bench) reference(ctx context.Context) error {
	from, err := b.referenceBase(ctx)
	if err != nil {
		return err
	}
	r := referenceBuild{bench: b, project: filepath.Join(b.dir, "reference"), from: from}
	if err := writeReference(r.project); err != nil {
		return err
	}
	builders := b.builders(ctx)
	r.races = []*race{newRace("reference build, cold", len(builders)), newRace("reference build, cached", len(builders))}
	for n := range b.runs {
		for i, x := range builders {
			if err := r.run(ctx, i, x, filepath.Join(b.dir, fmt.Sprintf("run-%d-%d", n, i))); err != nil {
				return err
			}
		}
	}
	fmt.Println("RATIO is now that of wherry's time to the one in the line.")
	for _, race := range r.races {
		race.printToFirst()
	}
	return b.unchangedContext(ctx, r.project)
}

// run has builder i build twice.
func (r *referenceBuild) run(ctx context.Context, i int, x builder, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := x.start(ctx, dir); err != nil {
		return err
	}
	defer x.stop()
	for n, race := range r.races {
		unix.Sync() // what the one before left to write is not for this one
		if err := race.run(ctx, r.bench, i, x.archive(r.project, r.from, filepath.Join(dir, fmt.Sprintf("%d.tar", n)))); err != nil {
			return err
		}
	}
	return nil
}

// referenceBase puts a Debian into the registry, or names the toolbox there, which is much
// smaller.
func (b *bench) referenceBase(ctx context.Context) (from string, err error) {
	root, err := base.Debian(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "without a base image of 170 MB:", err)
		return b.registry.Addr() + "/toolbox", nil
	}
	layer, err := tarball.LayerFromFile(root, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return "", err
	}
	img, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
	})
	if err != nil {
		return "", err
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return "", err
	}
	return b.registry.Addr() + "/debian", b.registry.Put("debian:latest", img)
}

// unchangedContext times what it takes to see that 15,000 files are what they were.
func (b *bench) unchangedContext(ctx context.Context, project string) error {
	small := filepath.Join(b.dir, "small")
	dockerfile := filepath.Join(b.dir, "unchanged.Dockerfile")
	err := errors.Join(
		os.MkdirAll(filepath.Join(small, "tree"), 0o755), os.WriteFile(filepath.Join(small, "tree", "file"), nil, 0o600),
		os.WriteFile(dockerfile, []byte("FROM scratch\nCOPY tree /tree\n"), 0o600),
	)
	if err != nil {
		return err
	}
	r := newRace("an unchanged context", 2)
	for n := range b.runs + 1 {
		for i, c := range []contender{{name: "wherry build, 15,000 files", args: []string{project}}, {name: "wherry build, 1 file", args: []string{small}}} {
			c.args = append([]string{b.wherry, "--store", filepath.Join(b.dir, "unchanged"), "build", "-q", "-o", "type=cacheonly", "-f", dockerfile}, c.args...)
			if n == 0 { // fills the cache
				_, err = b.time(ctx, c)
			} else {
				err = r.run(ctx, b, i, c)
			}
			if err != nil {
				return err
			}
		}
	}
	r.printToFirst()
	fmt.Printf("%-34s %-32s %10s\n", r.what, "the difference", show(median(r.times[0])-median(r.times[1])))
	return nil
}
