package layout_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/wherry-oci/wherry/layout"
)

// Open a store, load an archive as "docker save" writes it, and list what there is.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := layout.Open(filepath.Join(dir, "store"))
	if err != nil {
		panic(err)
	}

	var archive bytes.Buffer
	if err := tarball.Write(name.MustParseReference("alpine:3.20"), empty.Image, &archive); err != nil {
		panic(err)
	}
	if _, err := store.Load(context.Background(), &archive, layout.LoadOptions{}); err != nil {
		panic(err)
	}

	images, err := store.List()
	if err != nil {
		panic(err)
	}
	for _, i := range images {
		fmt.Println(i.Name(), i.Descriptor().MediaType, i.Size())
	}
	// Output:
	// docker.io/library/alpine:3.20 application/vnd.oci.image.manifest.v1+json 363
}
