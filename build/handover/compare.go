//go:build linux

package handover

import "strings"

// change is one line of a difference: a file that is new or has changed, or, where now is nil, one that is gone.
type change struct {
	path string
	now  *entry
}

// verdict is what comparing two descriptions of a file can say.
type verdict int

const (
	same verdict = iota
	changed
	doubtful // all that a layer says of it is equal, and still somebody touched it: its content decides
)

// difference lists what has changed from old to now, in the order of a walk: a folder that is gone stands for all that
// was in it, and what was in a folder that has become something else is not named at all. differs is asked for the
// files that may have changed in nothing but their content, all at once; it returns those that have.
func difference(old, now []entry, judge func(was, is *entry) verdict, differs func([]*entry) (map[string]bool, error)) ([]change, error) {
	var list []change
	var doubts []*entry
	gone := "\x00" // no path begins so
	for i, j := 0, 0; i < len(old) || j < len(now); {
		switch order := compareAt(old, now, i, j); {
		case order < 0:
			if path := old[i].path; !strings.HasPrefix(path, gone) {
				list = append(list, change{path: path})
				gone = path + "/"
			}
			i++
		case order > 0:
			list = append(list, change{now[j].path, &now[j]})
			j++
		default:
			was, is := &old[i], &now[j]
			if was.isDir() && !is.isDir() {
				gone = was.path + "/"
			}
			switch judge(was, is) {
			case changed:
				list = append(list, change{is.path, is})
			case doubtful:
				list = append(list, change{is.path, is})
				doubts = append(doubts, is)
			case same:
			}
			i, j = i+1, j+1
		}
	}
	return withoutSame(list, doubts, differs)
}

// withoutSame drops the doubtful files whose content is what it was.
func withoutSame(list []change, doubts []*entry, differs func([]*entry) (map[string]bool, error)) ([]change, error) {
	if len(doubts) == 0 {
		return list, nil
	}
	different, err := differs(doubts)
	if err != nil {
		return nil, err
	}
	drop := make(map[string]bool, len(doubts))
	for _, e := range doubts {
		drop[e.path] = !different[e.path]
	}
	kept := list[:0]
	for _, c := range list {
		if c.now == nil || !drop[c.path] {
			kept = append(kept, c)
		}
	}
	return kept, nil
}

func compareAt(old, now []entry, i, j int) int {
	switch {
	case i == len(old):
		return 1
	case j == len(now):
		return -1
	}
	return compareInWalk(old[i].path, now[j].path)
}

// compareInWalk orders paths as a walk meets them: "a/b" before "a.b", since "a" comes before "a.b".
func compareInWalk(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return int(a[i]) - int(b[i])
	}
	return len(a) - len(b)
}

// judge compares what a folder's manifest says with what is there now, as BuildKit's differ of overlayfs does. A file
// that nobody touched has its inode and its times; one that was only touched (chown to the owner it had, a new or a
// lost hard link, moved away and back) is the same if its content is, and overlayfs would not list it either.
func judge(was, is *entry) verdict {
	switch {
	case *was == *is:
		return same
	case was.mode != is.mode, was.uid != is.uid, was.gid != is.gid, was.rdev != is.rdev, was.capability != is.capability:
		return changed
	case is.isDir():
		return same
	case was.size != is.size, was.mtime != is.mtime:
		return changed
	}
	return doubtful
}
