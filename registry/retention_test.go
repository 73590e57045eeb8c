package registry

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Every rule errs on the side of keeping.
func TestRetention(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, time.March, n, 0, 0, 0, 0, time.UTC) }
	holding := func(tag, digest string, created time.Time) Holding {
		return Holding{Tag: tag, Descriptor: v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: digest}}, About: About{Created: created}}
	}
	tags := []Holding{
		holding("v1", "a", day(1)), holding("pr-1", "b", day(2)), holding("pr-2", "c", day(3)), holding("pr-2-too", "c", day(3)),
		holding("pr-3", "d", day(4)), holding("pr-3-twin", "e", day(4)), holding("pr-none", "f", time.Time{}),
	}
	keep := func(n int) *int { return &n }
	for name, test := range map[string]struct {
		rule Retention
		goes string
	}{
		"by pattern alone":    {Retention{Match: []string{"pr-?", "pr-none"}}, "pr-3 pr-2 pr-1 pr-none"},
		"an exclusion":        {Retention{Match: []string{"pr-*"}, Exclude: []string{"*-too", "*-twin", "pr-none"}}, "pr-3 pr-2 pr-1"},
		"the newest":          {Retention{Match: []string{"pr-*"}, Keep: keep(2)}, "pr-2 pr-2-too pr-1"},
		"as new as the last":  {Retention{Match: []string{"pr-*"}, Keep: keep(1)}, "pr-2 pr-2-too pr-1"},
		"images, not tags":    {Retention{Match: []string{"pr-*"}, Keep: keep(3)}, "pr-1"},
		"more than there are": {Retention{Keep: keep(99)}, ""},
		"none":                {Retention{Keep: keep(0)}, "pr-3 pr-3-twin pr-2 pr-2-too pr-1 v1"},
		"by age":              {Retention{Before: day(3)}, "pr-1 v1"},
		"by age and number":   {Retention{Before: day(4), Keep: keep(3)}, "pr-1 v1"},
	} {
		var goes []string
		for _, v := range test.rule.Judge(tags) {
			if v.Goes {
				goes = append(goes, v.Tag)
			}
			if v.Why == "" {
				t.Errorf("%s: nobody is told why of %s", name, v.Tag)
			}
		}
		if got := strings.Join(goes, " "); got != test.goes {
			t.Errorf("%s: %q goes, want %q", name, got, test.goes)
		}
	}
	if (Retention{Match: []string{"[a-"}}).Check() == nil {
		t.Error("a pattern that is none was taken")
	}
}
