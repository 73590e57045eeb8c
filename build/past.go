//go:build linux

package build

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/wherry-oci/wherry/build/engine"
)

// The build state remembers of the last build of each project what its steps were made
// of, so that the next one can say what has changed.
const (
	pastFolder = "past"
	maxPast    = 16 << 20 // bytes of one
)

// past is one build that was.
type past struct {
	Ended time.Time
	Steps []pastStep
}

type pastStep struct {
	Name     string
	Parts    map[string]string // as in [engine.Facts]
	Contents map[int]string
	Done     bool // it came to its end, or was cached
}

// pastFile is where the last build of the request's project is remembered.
func pastFile(state State, r Request) string {
	project := []string{absolute(r.Context), absolute(r.Dockerfile), r.Target, joinPlatforms(r)}
	return filepath.Join(state.folder(), pastFolder, digest.FromString(fmt.Sprintf("%q", project)).Encoded()+".json")
}

// absolute is the whole path of a context or Dockerfile that is in the file system.
func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil && exists(path) {
		return whole
	}
	return path
}

// readPast returns nil if there was no build, or none that can be read.
func readPast(path string) *past {
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxPast {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var p past
	if json.Unmarshal(text, &p) != nil {
		return nil
	}
	return &p
}

// write replaces what path remembers.
func (p *past) write(path string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return engine.Remember(path, text)
}

// find returns the step that s was in the past: one of the same name, or else the one in
// its place.
func (p *past) find(name string) (step *pastStep, renamed bool) {
	place, text := splitName(name)
	stage, _ := splitPlace(place)
	for i, s := range p.Steps {
		oldPlace, oldText := splitName(s.Name)
		if oldStage, _ := splitPlace(oldPlace); oldStage == stage && oldText == text {
			return &p.Steps[i], false
		}
	}
	for i, s := range p.Steps {
		if oldPlace, _ := splitName(s.Name); place != "" && samePlace(place, oldPlace) {
			return &p.Steps[i], true
		}
	}
	return nil, false
}

// splitName takes "[stage 2/5] RUN make" apart. place is "" if there is none.
func splitName(name string) (place, text string) {
	if rest, ok := strings.CutPrefix(name, "["); ok {
		if place, text, ok = strings.Cut(rest, "] "); ok {
			return place, text
		}
	}
	return "", name
}

// splitPlace takes "linux/arm64 stage 2/5" apart into what goes before the number, and
// the number.
func splitPlace(place string) (stage, number string) {
	i := strings.LastIndexByte(place, ' ')
	counter := place[i+1:]
	n, _, ok := strings.Cut(counter, "/")
	if !ok || strings.Trim(n, "0123456789") != "" {
		return place, ""
	}
	return place[:max(i, 0)], n
}

func samePlace(a, b string) bool {
	stageA, numberA := splitPlace(a)
	stageB, numberB := splitPlace(b)
	return stageA == stageB && numberA == numberB && numberA != ""
}
