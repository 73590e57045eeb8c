package chroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// supervisorGrace is how long a supervisor whose engine was killed may take to kill its step.
const supervisorGrace = 10 * time.Second

// Recover puts back what the steps of a killed engine had moved into their root file systems, and removes the secrets
// and everything else that was put there. root is the Options.Root of that engine; one that is missing is fine. It
// has to be called before New, and before anything is collected: a cache that a step was using is found nowhere but in
// that step's root file system. It waits until the steps have ended, for ten seconds at most.
func Recover(root string) error {
	list, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recover killed steps: %w", err)
	}
	var errs []error
	for _, d := range list {
		if d.IsDir() && exists(filepath.Join(root, d.Name(), lockName)) {
			if err := recoverScene(filepath.Join(root, d.Name())); err != nil {
				errs = append(errs, fmt.Errorf("recover killed step: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

func recoverScene(dir string) error {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := waitForLock(lock); err != nil {
		return fmt.Errorf("its supervisor does not end: %w", err)
	}
	j, rootfs, err := openJournal(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) { // killed before it began, or when all was done
		return removeScene(dir)
	}
	if err != nil {
		return err
	}
	root, err := step.OpenRootDir(rootfs)
	if errors.Is(err, fs.ErrNotExist) { // with all that was in it
		return errors.Join(j.undo(undoer{}.withoutRoot), os.RemoveAll(dir))
	}
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	defer step.Closing(root.FD)
	killStragglers(root)
	u := undoer{root: root, aside: filepath.Join(dir, asideName)}
	if err := j.undo(u.undo); err != nil {
		return err
	}
	return removeScene(dir)
}

// waitForLock locks a file that somebody has locked who is about to end.
func waitForLock(f *os.File) error {
	for deadline := time.Now().Add(supervisorGrace); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}
