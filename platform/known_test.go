package platform_test

import (
	"runtime"
	"testing"

	"github.com/wherry-oci/wherry/platform"
)

func TestIsKnown(t *testing.T) {
	for _, c := range []struct {
		os, arch string
		want     bool
	}{
		{"linux", "amd64", true},
		{"linux", "loong64", true},
		{"windows", "arm64", true},
		{runtime.GOOS, runtime.GOARCH, true},
		{"linux", "x86_64", false},
		{"arm64", "linux", false},
		{"linux", "", false},
		{"", "", false},
		{"plan9", "arm64", false},
		{"unknown", "unknown", false},
	} {
		if got := platform.IsKnown(c.os, c.arch); got != c.want {
			t.Errorf("IsKnown(%q, %q) = %t", c.os, c.arch, got)
		}
	}
}
