//go:build linux

package engine

import (
	"os"
	"path/filepath"
	"testing"
)

func reopen(t *testing.T, dir string) (notes []string, kept bool) {
	t.Helper()
	s, err := openState(dir, func(msg string) { notes = append(notes, msg) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.path(markerName)); err != nil {
		t.Errorf("an open state is not marked: %v", err)
	}
	_, err = os.Stat(filepath.Join(dir, "snapshots", "1"))
	return notes, err == nil
}

func TestStateOfAnotherBootIsDropped(t *testing.T) {
	dir := t.TempDir()
	reopen(t, dir)
	if err := os.MkdirAll(filepath.Join(dir, "snapshots", "1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if notes, kept := reopen(t, dir); !kept || len(notes) > 0 {
		t.Errorf("a process was killed: kept %v, said %q; want the state as it was", kept, notes)
	}
	s, err := openState(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if notes, kept := reopen(t, dir); !kept || len(notes) > 0 {
		t.Errorf("the state was closed: kept %v, said %q; want the state as it was", kept, notes)
	}
	if err := os.WriteFile(filepath.Join(dir, markerName), []byte("another boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if notes, kept := reopen(t, dir); kept || len(notes) != 1 {
		t.Errorf("the machine went down: kept %v, said %q; want an empty state and a word about it", kept, notes)
	}
}
