package registry_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"

	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/wherry-oci/wherry/registry"
)

// Copy an image from one registry to another, byte by byte.
func Example() {
	from, to := startRegistry(), startRegistry()
	defer from.Close()
	defer to.Close()
	seed(from, "app:1.2")

	ctx := context.Background()
	client := registry.New(registry.Config{UserAgent: "example/1.0"})
	source, err := registry.ParseReference(hostOf(from) + "/app:1.2")
	if err != nil {
		log.Fatal(err)
	}
	image, err := client.Get(ctx, source)
	if err != nil {
		log.Fatal(err)
	}
	target, err := registry.ParseReference(hostOf(to) + "/team/app:1.2")
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Push(ctx, target, image); err != nil {
		log.Fatal(err)
	}

	copied, err := client.Get(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("same digest:", copied.Descriptor().Digest == image.Descriptor().Digest)
	tags, err := client.Tags(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("tags:", tags)
	// Output:
	// same digest: true
	// tags: [1.2]
}

func startRegistry() *httptest.Server {
	return httptest.NewServer(ggcrregistry.New(ggcrregistry.Logger(log.New(io.Discard, "", 0))))
}

func hostOf(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

func seed(s *httptest.Server, ref string) {
	image, err := random.Image(1024, 2)
	if err != nil {
		log.Fatal(err)
	}
	tag, err := name.ParseReference(hostOf(s) + "/" + ref)
	if err != nil {
		log.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		log.Fatal(err)
	}
}
