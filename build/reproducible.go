//go:build linux

package build

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// NoEpochError says that a build is to be reproducible, and that the time of its context's
// last commit can't be found out.
type NoEpochError struct {
	Folder string
	Err    error
}

func (e *NoEpochError) Error() string {
	return fmt.Sprintf("build context %q: time of the last commit: %v", e.Folder, e.Err)
}

func (e *NoEpochError) Unwrap() error { return e.Err }

// findEpoch looks for the time of a reproducible build that was not told one.
func (s *sources) findEpoch(ctx context.Context, r Request) (err error) {
	if !r.Reproducible {
		return nil
	}
	s.reproducible = true
	switch {
	case r.BuildArgs[sourceDateEpoch] != "":
	case s.folder != "" && isInGit(s.folder):
		if s.epoch, err = lastCommit(ctx, s.folder); err != nil {
			return &NoEpochError{s.folder, err}
		}
	case isGit(s.remote):
		s.epoch = "context" // the frontend finds out the commit's time
	default:
		s.epoch = "0"
	}
	return nil
}

// lastCommit is the time of the commit that is checked out, in seconds; "0" before the first
// one. It is not that of the last commit to the folder alone, which a shallow clone doesn't know.
func lastCommit(ctx context.Context, dir string) (string, error) {
	// These commands run nothing that a repository's settings name, so it may be another user's.
	head, err := git(ctx, dir, "-c", "safe.directory=*", "rev-parse", "--verify", "--quiet", "HEAD")
	if err != nil || head == "" {
		return "0", err
	}
	commit, err := git(ctx, dir, "-c", "safe.directory=*", "rev-list", "--max-count=1", "--format=%ct", head)
	if err != nil {
		return "", err
	}
	seconds := commit[strings.LastIndex(commit, "\n")+1:] // below "commit HASH"
	_, err = strconv.ParseInt(seconds, 10, 64)
	return seconds, err
}

// masked says whether not all permissions in a folder are taken over: see asInGit.
func (s *sources) masked(dir string) bool { return s.reproducible && isInGit(dir) }

// asInGit leaves of the permissions in a folder what does not depend on the umask of whoever
// has checked it out: group and others may not write.
func asInGit(files fsutil.FS) (fsutil.FS, error) {
	return fsutil.NewFilterFS(files, &fsutil.FilterOpt{
		Map: func(_ string, st *types.Stat) fsutil.MapResult {
			if os.FileMode(st.Mode)&os.ModeSymlink == 0 {
				st.Mode &^= 0o022
			}
			return fsutil.MapResultKeep
		},
	})
}
