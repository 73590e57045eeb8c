//go:build linux

package build

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/wherry-oci/wherry/build/engine"
)

// fewFiles is how many files a cause names.
const fewFiles = 5

// detective finds out why steps were not taken from the cache.
type detective struct {
	report *Report
	facts  []*engine.Facts // of each step; nil: nothing is known
	before *past           // nil: nothing is known
	args   map[string]string
	sent   []sentFile
	// folders are the names of the folders that the inputs of each step are, as BuildKit
	// numbers them; "" for an input that is no folder.
	folders [][]string
}

// causes says why step i had to be run.
func (d *detective) causes(i int) []string {
	f := d.facts[i]
	switch {
	case f == nil || f.Parts == nil || f.Parts["source"] != "":
		return nil // no step of the Dockerfile, or none that a cache has
	case f.NoCache:
		return []string{"it was to be run anew (--no-cache or --no-cache-filter)"}
	case d.before == nil:
		return nil
	}
	old, renamed := d.before.find(d.report.Steps[i].Name)
	if old == nil {
		return append([]string{"the step is new"}, d.inputs(i)...)
	}
	causes := changes(old.Parts, f.Parts, d.args)
	if own := without(causes); renamed && (len(own) < len(causes) || len(causes) == 0) { // else only a variable in it changed
		_, was := splitName(old.Name)
		causes = append([]string{"the instruction changed; it was: " + was}, own...)
	}
	causes = append(causes, d.contents(i, old)...)
	causes = append(causes, d.inputs(i)...)
	switch {
	case len(causes) > 0:
		return causes
	case !old.Done:
		return []string{"it did not come to its end in the build before"}
	}
	return []string{"nothing that is known of it has changed; what it made may have left the build cache, or another build made it anew just then"}
}

// without are the causes but for those that say what another name says already.
func without(causes []string) []string {
	return slices.DeleteFunc(slices.Clone(causes), func(c string) bool {
		return c == "the command changed" || c == "the instruction changed"
	})
}

// changes names the parts in which two versions of a step differ.
func changes(old, now map[string]string, args map[string]string) []string {
	var found []string
	names := slices.Sorted(maps.Keys(now))
	for name := range old {
		if _, ok := now[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		was, had := old[name]
		is, has := now[name]
		variable, isVariable := strings.CutPrefix(name, "variable ")
		what := "the " + name
		if isVariable {
			what = "the variable " + variable
			if _, given := args[variable]; given {
				what = "the build argument " + variable
			}
		}
		switch {
		case was == is:
		case !had:
			found = append(found, what+" is new")
		case !has:
			found = append(found, what+" is gone")
		default:
			found = append(found, what+" changed")
		}
	}
	return found
}

// contents says which files that step i reads are others than before.
func (d *detective) contents(i int, old *pastStep) []string {
	for n, sum := range d.facts[i].Contents {
		if was := old.Contents[n]; was == "" || was == sum {
			continue
		}
		of := d.sentOf(i, n)
		if len(of) == 0 {
			return []string{"the files that it copies changed"}
		}
		what := "files that it copies changed: " + strings.Join(of[:min(len(of), fewFiles)], ", ")
		if more := len(of) - fewFiles; more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
		return []string{what}
	}
	return nil
}

// sentOf are the files that step i copies of its input n and that were sent.
func (d *detective) sentOf(i, n int) []string {
	if n >= len(d.folders[i]) || d.folders[i][n] == "" {
		return nil // files of an image, or of another stage
	}
	var of []string
	for _, file := range d.sent {
		if file.folder == d.folders[i][n] && slices.ContainsFunc(d.facts[i].Paths, func(p string) bool { return takes(p, file.path) }) {
			of = append(of, file.path)
		}
	}
	slices.Sort(of)
	return of
}

// takes says whether a COPY of pattern takes the file.
func takes(pattern, file string) bool {
	pattern = strings.Trim(path.Clean("/"+pattern), "/")
	if pattern == "" {
		return true
	}
	file = strings.Trim(path.Clean("/"+file), "/")
	for file != "" && file != "." {
		if ok, err := path.Match(pattern, file); ok || err != nil {
			return true
		}
		file = path.Dir(file)
	}
	return false
}

// inputs says what step i is built on that is not what it was.
func (d *detective) inputs(i int) []string {
	var again, causes []string
	for _, n := range d.report.Steps[i].Inputs {
		s, f := d.report.Steps[n], d.facts[n]
		switch {
		case f == nil || f.Parts == nil:
		case f.Folder != "":
			if d.facts[i].Record != "" && slices.ContainsFunc(d.sent, func(file sentFile) bool { return file.folder == f.Folder }) {
				causes = append(causes, "files changed in a folder that it mounts")
			}
		case f.Parts["source"] != "":
			if old, _ := d.before.find(s.Name); old == nil || old.Parts["source"] != f.Parts["source"] {
				causes = append(causes, "it is built on something else than before: "+s.Name)
			}
		case !s.Cached && len(s.Spans) > 0:
			again = append(again, s.Name)
		}
	}
	if len(again) > 0 {
		causes = append(causes, "it is built on what was run again: "+strings.Join(again, ", "))
	}
	return causes
}
