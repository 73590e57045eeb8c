package layout_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/layout"
)

func TestAFullDiskChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no small disk: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // nothing to be done
	s := open(t, dir)
	put(t, s, from(t, image(t, "linux/amd64", 1, 1000)), alpine)
	before := files(t, s)
	big := image(t, "linux/amd64", 3, 2<<20) // two of the layers fit
	_, err := s.Put(t.Context(), from(t, big), layout.PutOptions{Names: []string{other}})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("put: %v", err)
	}
	if after := files(t, s); !slices.Equal(before, after) {
		t.Errorf("put left %v", after)
	}
	archive := dockerArchive(t, map[string]v1.Image{"big": big})
	if _, err := s.Load(t.Context(), bytes.NewReader(archive), layout.LoadOptions{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("load: %v", err)
	}
	if after := files(t, s); !slices.Equal(before, after) {
		t.Errorf("load left %v", after)
	}
	check(t, s)
	put(t, s, from(t, image(t, "linux/amd64", 1, 1<<20)), other)
	check(t, s)
}
