package layout

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A lease is lost as soon as somebody wants to write, who has to wait until it is released.
func TestLease(t *testing.T) {
	name := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := newLease(f)
	if l == nil {
		t.Skip("this file system knows no leases")
	}
	if !l.held() {
		t.Error("lost at once")
	}
	if fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a writer got file %d, error %v", fd, err)
	}
	if l.held() {
		t.Error("held although somebody wants to write")
	}
	l.release()
	w, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if newLease(f) != nil {
		t.Error("had although somebody may write")
	}
	newLease(nil).release()
}
