//go:build linux

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRemember(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	start := time.Now().Add(-time.Hour)
	for i := range maxRemembered + 10 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := Remember(path, []byte("old")); err != nil {
			t.Fatal(err)
		}
		at := start.Add(time.Duration(i) * time.Second)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	last := filepath.Join(dir, fmt.Sprint(maxRemembered+9))
	if err := Remember(last, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(last); err != nil || string(text) != "new" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != maxRemembered {
		t.Errorf("%d files are kept, %v; want %d", len(entries), err, maxRemembered)
	}
	if _, err := os.Stat(filepath.Join(dir, "9")); !os.IsNotExist(err) {
		t.Errorf("the oldest is still there: %v", err)
	}
}
