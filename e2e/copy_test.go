package e2e

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdSign: sign NAME REPO:TAG|REPO@DIGEST TEXT [child] [tag] publishes an artifact about an image, or about the first manifest
// of an index, without wherry, and prints its digest. With tag it is kept as cosign does it, else by its subject.
func cmdSign(ts *testscript.TestScript, _ bool, args []string) {
	ref, subject := remoteDescriptor(ts, args[0], args[1])
	about := *subject
	for _, how := range args[3:] {
		if how == "child" {
			index, err := remote.Index(ref)
			ts.Check(err)
			manifest, err := index.IndexManifest()
			ts.Check(err)
			about = manifest.Manifests[0]
		}
	}
	about.Platform, about.Annotations = nil, nil
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.example.signature.v1+json")
	img, err := mutate.AppendLayers(img, static.NewLayer([]byte(args[2]), "application/vnd.example.signature"))
	ts.Check(err)
	if strings.Join(args[3:], " ") == "tag" {
		tag := ref.Context().Tag(strings.Replace(about.Digest.String(), ":", "-", 1) + ".sig")
		ts.Check(remote.Write(tag, img))
	} else {
		img = mutate.Subject(img, about).(v1.Image)
	}
	digest, err := img.Digest()
	ts.Check(err)
	ts.Check(remote.Write(ref.Context().Digest(digest.String()), img))
	fmt.Fprintln(ts.Stdout(), digest)
}

func remoteDescriptor(ts *testscript.TestScript, registry, image string) (name.Reference, *v1.Descriptor) {
	ref, err := name.ParseReference(storyOf(ts).registries[registry].addr+"/"+image, name.Insecure)
	ts.Check(err)
	d, err := remote.Head(ref)
	ts.Check(err)
	return ref, d
}

// cmdReferrers: referrers NAME REPO:TAG [child] prints the digests of what refers to an image, as ggcr finds them.
func cmdReferrers(ts *testscript.TestScript, _ bool, args []string) {
	ref, subject := remoteDescriptor(ts, args[0], args[1])
	digest := subject.Digest
	if len(args) > 2 {
		index, err := remote.Index(ref)
		ts.Check(err)
		manifest, err := index.IndexManifest()
		ts.Check(err)
		digest = manifest.Manifests[0].Digest
	}
	list, err := remote.Referrers(ref.Context().Digest(digest.String()))
	ts.Check(err)
	manifest, err := list.IndexManifest()
	ts.Check(err)
	out := ts.Stdout()
	for _, d := range manifest.Manifests {
		_, err := remote.Get(ref.Context().Digest(d.Digest.String()))
		ts.Check(err)
		fmt.Fprintln(out, d.Digest)
	}
}

// cmdReceived: received NAME FROM TO requires that so many bytes of blobs were uploaded to a registry until now.
func cmdReceived(ts *testscript.TestScript, _ bool, args []string) {
	got, from, to := storyOf(ts).registries[args[0]].inner.Received(), int64(atoi(ts, args[1])), int64(atoi(ts, args[2]))
	if got < from || got > to {
		ts.Fatalf("%d bytes of blobs were uploaded", got)
	}
}
