package chroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// The folders of one step, below the executor's own.
const (
	lockName    = "lock"    // locked for as long as the engine or the step's supervisor lives
	journalName = "journal" // see journal
	asideName   = "aside"   // what mounts cover, until it is put back
	newName     = "new"     // what is about to be put in place
)

// scene is a root file system that is dressed for one step. What stands for a mount is moved or made in its place, and
// what was there lies aside; the journal knows it all, so that strike, or Recover after a kill, can put it back.
type scene struct {
	dir      string
	root     step.RootDir
	lock     *os.File
	journal  *journal
	homes    map[string]string // sources that were moved in, and where they are
	releases []func() error
	standIns bool
	n        int // names given below asideName and newName
}

func newScene(root, id, rootfs string) (_ *scene, err error) {
	s := &scene{dir: filepath.Join(root, id), homes: map[string]string{}}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(), os.RemoveAll(s.dir))
		}
	}()
	for _, name := range []string{asideName, newName} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, lockName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	if s.root, err = step.OpenRootDir(rootfs); err != nil {
		return nil, step.Setup(err, "open root file system")
	}
	s.journal, err = newJournal(filepath.Join(s.dir, journalName), rootfs)
	return s, err
}

func (s *scene) close() error {
	if s.root.Path != "" {
		step.Closing(s.root.FD)
	}
	if s.lock != nil {
		return s.lock.Close()
	}
	return nil
}

// strike takes everything out again, in the reverse order. What can't be put back stays where it is, with its journal.
func (s *scene) strike() error {
	errs := []error{}
	for _, release := range s.releases {
		errs = append(errs, release())
	}
	killStragglers(s.root)
	u := undoer{root: s.root, aside: filepath.Join(s.dir, asideName), live: true}
	errs = append(errs, s.journal.undo(u.undo))
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, s.close())
	}
	return errors.Join(s.close(), removeScene(s.dir))
}

// removeScene removes a step's folders, but nothing that was covered.
func removeScene(dir string) error {
	return errors.Join(
		os.RemoveAll(filepath.Join(dir, newName)), os.Remove(filepath.Join(dir, asideName)),
		os.RemoveAll(filepath.Join(dir, journalName)), os.RemoveAll(filepath.Join(dir, lockName)), os.Remove(dir))
}

// fresh is a new path below one of the scene's folders.
func (s *scene) fresh(folder string) string {
	s.n++
	return filepath.Join(s.dir, folder, strconv.Itoa(s.n))
}

// place is where something is to appear: a name in a folder of the root file system, free of links.
type place struct {
	path string
	dir  int // the folder, O_PATH
	base string
}

// clear finds the place for dest, makes the folders that are missing on the way, and moves aside what is there. With
// follow a link at dest is followed, else it is covered.
func (s *scene) clear(dest string, follow bool) (p place, err error) {
	if follow {
		p.path, err = s.root.Literal(dest)
	} else if p.path, err = s.root.Literal(path.Dir(dest)); err == nil {
		p.path = path.Join(p.path, path.Base(dest))
	}
	if err != nil {
		return p, err
	}
	if p.path == "/" {
		return p, errors.New("the root can't be mounted on")
	}
	p.base = path.Base(p.path)
	if p.dir, err = s.folders(path.Dir(p.path)); err != nil {
		return p, err
	}
	defer func() {
		if err != nil {
			step.Closing(p.dir)
		}
	}()
	there, err := inodeAt(p.dir, p.base)
	if errors.Is(err, unix.ENOENT) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	aside := s.fresh(asideName)
	if err := s.journal.add(entry{Kind: covered, To: p.path, From: aside, Thing: there}); err != nil {
		return p, err
	}
	return p, keepTimes(p.dir, func() error { return unix.Renameat(p.dir, p.base, unix.AT_FDCWD, aside) })
}

// folders opens the folder at name, a path without links, and makes what is missing of it, as root's.
func (s *scene) folders(name string) (int, error) {
	cur, err := s.root.Open("/", unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	walked := "/"
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' }) {
		walked = path.Join(walked, part)
		next, err := unix.Openat(cur, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			next, err = s.folder(cur, walked)
		}
		step.Closing(cur)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", walked, err)
		}
		cur = next
	}
	return cur, nil
}

func (s *scene) folder(dir int, name string) (fd int, err error) {
	if err := s.journal.add(entry{Kind: madeFolder, To: name}); err != nil {
		return -1, err
	}
	base := path.Base(name)
	err = keepTimes(dir, func() error {
		if err := unix.Mkdirat(dir, base, 0o755); err != nil {
			return err
		}
		fd, err = unix.Openat(dir, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err == nil {
		err = os.Chmod(step.FDPath(fd), 0o755) // whatever our umask is
	}
	return fd, err
}

// put moves what was made at from, which is ours, to the place.
func (s *scene) put(from string, p place) error {
	defer step.Closing(p.dir)
	thing, err := inodeAt(unix.AT_FDCWD, from)
	if err != nil {
		return err
	}
	if err := s.journal.add(entry{Kind: placed, To: p.path, Thing: thing}); err != nil {
		return err
	}
	return keepTimes(p.dir, func() error { return unix.Renameat(unix.AT_FDCWD, from, p.dir, p.base) })
}

// putNew has f make something at a path of its own and puts it at dest.
func (s *scene) putNew(dest string, follow bool, f func(at string) error) error {
	at := s.fresh(newName)
	if err := f(at); err != nil {
		return err
	}
	p, err := s.clear(dest, follow)
	if err != nil {
		return err
	}
	return s.put(at, p)
}

// admit puts what a mount is to show in its place.
func (s *scene) admit(ctx context.Context, g *guest) error {
	switch {
	case g.secret != nil:
		return s.putNew(g.dest, true, func(at string) error {
			return writeFile(at, g.secret.data, g.secret.mode, g.secret.uid, g.secret.gid)
		})
	case g.empty:
		return s.putNew(g.dest, true, func(at string) error { return makeFolder(at, 0o777|unix.S_ISVTX) })
	}
	source, err := g.part()
	if err != nil {
		return err
	}
	if where, ok := s.home(source); ok { // one cache at two paths
		return s.putNew(g.dest, true, func(at string) error { return os.Symlink(where, at) })
	}
	info, err := os.Lstat(source)
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket != 0:
		return s.putNew(g.dest, true, func(at string) error { return s.socket(ctx, source, at) })
	case g.readonly:
		return s.putNew(g.dest, true, func(at string) error { return copyAll(at, source, info) })
	}
	return s.moveIn(g.dest, source)
}

// part is the path of what of the source is wanted.
func (g *guest) part() (string, error) {
	if g.selector == "" || g.selector == "/" {
		return g.source, nil
	}
	return cfs.RootPath(g.source, g.selector)
}

// home is where a source, or a part of one, that was moved in before is to be found in the step.
func (s *scene) home(source string) (string, bool) {
	for moved, at := range s.homes {
		if rel, ok := strings.CutPrefix(source, moved); ok && (rel == "" || rel[0] == '/') {
			return path.Join(at, rel), true
		}
	}
	return "", false
}

// moveIn moves a folder or file into the step until its end.
func (s *scene) moveIn(dest, source string) error {
	p, err := s.clear(dest, true)
	if err != nil {
		return err
	}
	defer step.Closing(p.dir)
	thing, err := inodeAt(unix.AT_FDCWD, source)
	if err != nil {
		return err
	}
	if err := s.journal.add(entry{Kind: moved, To: p.path, From: source, Thing: thing}); err != nil {
		return err
	}
	s.homes[source] = p.path
	err = keepTimes(p.dir, func() error { return unix.Renameat(unix.AT_FDCWD, source, p.dir, p.base) })
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%q is on another file system than the snapshots: %w", source, err)
	}
	return err
}

// makeCwd makes the step's folder where that lies below a mount; what is made so goes with the mount.
func (s *scene) makeCwd(cwd string) error {
	fd, err := s.root.MkdirAll(cwd, 0, 0)
	if err != nil {
		return step.Setup(err, "make working directory %q", cwd)
	}
	step.Closing(fd)
	return nil
}

// keepTimes calls f, which changes what is in dir, and gives dir its times back.
func keepTimes(dir int, f func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, step.FDPath(dir), []unix.Timespec{st.Atim, st.Mtim}, 0)
}
