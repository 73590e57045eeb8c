package e2e

import (
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// leastAlike is how many lines have to be the same for a comparison to mean anything.
const leastAlike = 400

// cmdBeside: beside ONE OTHER REASONS compares two files line by line, in any order. A line that only one of them has
// must fit a pattern of REASONS: "< REGEXP" for ONE, "> REGEXP" for OTHER, each below a comment that says why it is right.
func cmdBeside(ts *testscript.TestScript, _ bool, args []string) {
	one, other := lines(ts.ReadFile(args[0])), lines(ts.ReadFile(args[1]))
	allowed := readReasons(ts, args[2])
	alike := 0
	for _, line := range one {
		if slices.Contains(other, line) {
			alike++
		} else if !allowed.fits('<', line) {
			ts.Logf("only in %s: %s", args[0], line)
			defer ts.Fatalf("a difference has no reason")
		}
	}
	for _, line := range other {
		if !slices.Contains(one, line) && !allowed.fits('>', line) {
			ts.Logf("only in %s: %s", args[1], line)
			defer ts.Fatalf("a difference has no reason")
		}
	}
	if alike < leastAlike {
		ts.Fatalf("only %d lines are the same", alike)
	}
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

// reasons are the differences that are right, by the side that has them.
type reasons map[byte][]*regexp.Regexp

func (r reasons) fits(side byte, line string) bool {
	return slices.ContainsFunc(r[side], func(re *regexp.Regexp) bool { return re.MatchString(line) })
}

func readReasons(ts *testscript.TestScript, file string) reasons {
	all, explained := reasons{}, false
	for _, line := range lines(ts.ReadFile(file)) {
		side, pattern, ok := strings.Cut(line, " ")
		switch {
		case side == "#":
			explained = true
		case !ok || side != "<" && side != ">" || !explained:
			ts.Fatalf("%s: %q is no difference with a reason", file, line)
		default:
			re, err := regexp.Compile("^" + pattern + "$")
			ts.Check(err)
			all[side[0]] = append(all[side[0]], re)
		}
	}
	return all
}
