package layout_test

import (
	"syscall"
	"testing"
)

// limitFiles keeps a bomb that goes off from filling the disk.
func limitFiles(t *testing.T) {
	t.Helper()
	limit := syscall.Rlimit{Cur: 3 << 30, Max: 3 << 30}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
}
