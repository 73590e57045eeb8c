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

	client := registry.New(registry.Config{UserAgent: "example/1.0"})
	tags, err := copyImage(context.Background(), client, hostOf(from)+"/app:1.2", hostOf(to)+"/team/app:1.2")
	fmt.Println(tags, err)
	// Output: [1.2] <nil>
}

// copyImage returns the tags of the repository that it copied to.
func copyImage(ctx context.Context, client *registry.Client, from, to string) ([]string, error) {
	source, err := registry.ParseReference(from)
	if err != nil {
		return nil, err
	}
	target, err := registry.ParseReference(to)
	if err != nil {
		return nil, err
	}
	image, err := client.Get(ctx, source)
	if err != nil {
		return nil, err
	}
	if err := client.Push(ctx, target, image); err != nil {
		return nil, err
	}
	return client.Tags(ctx, target)
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
