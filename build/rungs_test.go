//go:build linux

package build_test

import (
	"strings"
	"testing"

	"github.com/wherry-oci/wherry/build"
)

// TestRungs tries all rungs: the tests run on the first that can be had, and each other one says why it can't be.
func TestRungs(t *testing.T) {
	rungs, err := build.Rungs(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var letters, here strings.Builder
	for _, r := range rungs {
		letters.WriteString(r.Letter)
		if r.Reason == nil {
			here.WriteString(r.Letter)
		} else if r.Reason.Error() == "" {
			t.Errorf("rung %s can't be had, and does not say why", r.Letter)
		}
		t.Logf("%s %s (%s): %v", r.Letter, r.Name, r.Isolation, r.Reason)
	}
	if letters.String() != "abcdef" {
		t.Errorf("the rungs are %q", &letters)
	}
	if !strings.HasSuffix(here.String(), "f") || unbuildable == "" && strings.IndexAny(here.String(), "abcd") != 0 {
		t.Errorf("rungs that can be had: %q", &here)
	}
}
