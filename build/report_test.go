//go:build linux

package build

import (
	"slices"
	"testing"
	"time"

	"github.com/wherry-oci/wherry/build/engine"
)

// A step waits for the input that ended last, through what was cached; an export for all before it.
func TestCriticalPath(t *testing.T) {
	at := func(start, end int) []Span {
		begin := time.Unix(1000, 0)
		return []Span{{begin.Add(time.Duration(start) * time.Second), begin.Add(time.Duration(end) * time.Second)}}
	}
	r := &Report{Steps: []ReportStep{
		0: {Name: "load definition", Spans: at(0, 1)},
		1: {Name: "load context", Spans: at(1, 2)},
		2: {Name: "cached", Inputs: []int{1}, Cached: true, Spans: at(2, 2)},
		3: {Name: "slow", Inputs: []int{2}, Spans: at(2, 9)},
		4: {Name: "fast", Inputs: []int{2}, Spans: at(2, 4)},
		5: {Name: "both", Inputs: []int{4, 3}, Spans: at(9, 10)},
		6: {Name: "export", Spans: at(10, 12)},
		7: {Name: "not needed", Inputs: []int{3}},
	}}
	if got, want := r.CriticalPath(), []int{0, 1, 3, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("%v instead of %v", got, want)
	}
	if got := new(Report).CriticalPath(); got != nil {
		t.Errorf("%v of nothing", got)
	}
}

func TestCauses(t *testing.T) {
	before := &past{Steps: []pastStep{
		{Name: "[web 1/4] FROM image@1", Parts: map[string]string{"source": "1"}},
		{Name: "[web 2/4] COPY src /", Parts: map[string]string{"instruction": "c"}, Contents: map[int]string{1: "old"}, Done: true},
		{Name: "[web 3/4] RUN make one", Parts: map[string]string{"command": "m", "variable A": "1"}, Done: true},
		{Name: "[web 4/4] RUN last", Parts: map[string]string{"command": "l"}},
	}}
	source := &engine.Facts{Parts: map[string]string{"source": "1"}}
	tests := []struct {
		name  string
		facts engine.Facts
		want  []string
	}{
		{"[web 3/4] RUN make one", engine.Facts{Parts: map[string]string{"command": "m", "variable A": "1"}}, []string{"nothing that is known of it has changed; what it made may have left the build cache, or another build made it anew just then"}},
		{"[web 3/5] RUN make two", engine.Facts{Parts: map[string]string{"command": "m", "variable A": "2"}}, []string{"the build argument A changed"}},
		{"[web 3/4] RUN make two", engine.Facts{Parts: map[string]string{"command": "n"}}, []string{"the instruction changed; it was: RUN make one", "the build argument A is gone"}},
		{"[web 9/9] RUN more", engine.Facts{Parts: map[string]string{"command": "x"}}, []string{"the step is new"}},
		{"[web 4/4] RUN last", engine.Facts{Parts: map[string]string{"command": "l", "variable B": "1"}}, []string{"the variable B is new"}},
		{"[web 4/4] RUN last", engine.Facts{Parts: map[string]string{"command": "l"}}, []string{"it did not come to its end in the build before"}},
		{"[web 4/4] RUN last", engine.Facts{Parts: map[string]string{"command": "l"}, NoCache: true}, []string{"it was to be run anew (--no-cache or --no-cache-filter)"}},
		{"[web 2/4] COPY src /", engine.Facts{Parts: map[string]string{"instruction": "c"}, Paths: []string{"/src"}, Contents: map[int]string{1: "new"}}, []string{"files that it copies changed: src/a, src/b"}},
		{"[web 2/4] COPY src /", engine.Facts{Parts: map[string]string{"instruction": "c"}, Paths: []string{"/*.go"}, Contents: map[int]string{1: "new"}}, []string{"the files that it copies changed"}},
	}
	for _, test := range tests {
		d := &detective{
			report:  &Report{Steps: []ReportStep{{Name: test.name, Inputs: []int{1}}, {Name: "[web 1/4] FROM image@1"}}},
			facts:   []*engine.Facts{&test.facts, source},
			before:  before,
			args:    map[string]string{"A": "2"},
			sent:    []sentFile{{"context", "src/b"}, {"context", "src/a"}, {"context", "srcs"}, {"named-x", "src/c"}},
			folders: [][]string{{"", "context"}, nil},
		}
		if got := d.causes(0); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q instead of %q", test.name, got, test.want)
		}
	}
}
