package step

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"
)

// drainGrace is how long output may stay silent after the step's end while somebody still holds its pipe: a process
// outside of the step that was handed the descriptor. Within the step nobody is left then.
const drainGrace = time.Second

// stdio is the plumbing between a step and the streams of its ProcessInfo.
type stdio struct {
	files   [3]*os.File // the child's ends
	info    executor.ProcessInfo
	pipe    func() (r, w *os.File, err error)
	ours    []*os.File // our ends
	readers []*os.File // those of ours that are read from
	console *os.File

	copies sync.WaitGroup
	mu     sync.Mutex
	err    error
}

// newStdio makes pipes, by pipe, for the streams that are there and opens /dev/null for the others. With a terminal all three
// are /dev/null until attachConsole.
func newStdio(info executor.ProcessInfo, pipe func() (r, w *os.File, err error)) (_ *stdio, err error) {
	s := &stdio{info: info, pipe: pipe}
	defer func() {
		if err != nil {
			s.closeChildEnds()
			s.close()
		}
	}()
	tty := info.Meta.Tty
	if s.files[0], err = s.input(info.Stdin, tty); err != nil {
		return nil, err
	}
	if s.files[1], err = s.output(info.Stdout, tty); err != nil {
		return nil, err
	}
	s.files[2], err = s.output(info.Stderr, tty)
	return s, err
}

func (s *stdio) input(src io.Reader, tty bool) (*os.File, error) {
	if src == nil || tty {
		return os.Open(os.DevNull)
	}
	r, w, err := s.pipe()
	if err != nil {
		return nil, err
	}
	s.ours = append(s.ours, w)
	go s.feed(w, src)
	return r, nil
}

// feed is not waited for: its source may never end. close closes both sides of it.
func (s *stdio) feed(dst io.WriteCloser, src io.Reader) {
	_, _ = io.Copy(dst, src) // a step need not read all of its input
	_ = dst.Close()
}

func (s *stdio) output(dst io.Writer, tty bool) (*os.File, error) {
	if dst == nil || tty {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	r, w, err := s.pipe()
	if err != nil {
		return nil, err
	}
	s.copyFrom(r, dst)
	return w, nil
}

func (s *stdio) copyFrom(r *os.File, dst io.Writer) {
	s.ours, s.readers = append(s.ours, r), append(s.readers, r)
	s.copies.Go(func() {
		if err := drain(dst, r); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.err = errors.Join(s.err, err)
		}
	})
}

// drain copies r to its end. When dst fails it goes on reading, so that the step is not blocked by it. After a read
// deadline has passed it takes what has come meanwhile, and ends when that was nothing.
func drain(dst io.Writer, r *os.File) (err error) {
	buf, fresh := make([]byte, 32<<10), true
	for {
		n, rerr := r.Read(buf)
		if n > 0 {
			fresh = true
			if err == nil {
				_, err = dst.Write(buf[:n])
			}
		}
		switch {
		case rerr == nil:
		case errors.Is(rerr, os.ErrDeadlineExceeded) && fresh:
			fresh = false
			if derr := r.SetReadDeadline(time.Now().Add(drainGrace)); derr != nil {
				return err
			}
		case errors.Is(rerr, io.EOF), errors.Is(rerr, syscall.EIO), errors.Is(rerr, os.ErrClosed), errors.Is(rerr, os.ErrDeadlineExceeded):
			return err // EIO: the other side of a terminal was closed
		default:
			return errors.Join(err, rerr)
		}
	}
}

// attachConsole copies between the step's terminal and the streams.
func (s *stdio) attachConsole(master *os.File) {
	// Only a descriptor in non-blocking mode can be waited for with a deadline.
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil || unix.SetNonblock(fd, true) != nil {
		fd = -1
	}
	if fd >= 0 {
		_ = master.Close()
		master = os.NewFile(uintptr(fd), "/dev/ptmx")
	}
	s.console = master
	out := io.Discard
	if s.info.Stdout != nil {
		out = s.info.Stdout
	}
	s.copyFrom(master, out)
	if s.info.Stdin != nil {
		go func() { _, _ = io.Copy(master, s.info.Stdin) }() // ends when close closes either side
	}
}

// resize sets the terminal's size; the kernel tells the step.
func (s *stdio) resize(size executor.WinSize) {
	if s.console != nil {
		_ = unix.IoctlSetWinsize(int(s.console.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Rows), Col: uint16(size.Cols)})
	}
}

// wait returns when all output of the ended step is copied, with the first error of a destination.
func (s *stdio) wait() error {
	for _, r := range s.readers {
		_ = r.SetReadDeadline(time.Now().Add(drainGrace))
	}
	s.copies.Wait()
	return s.err
}

func (s *stdio) closeChildEnds() {
	for i, f := range s.files {
		if f != nil {
			_ = f.Close() // the child has its own
			s.files[i] = nil
		}
	}
}

func (s *stdio) close() {
	if s.info.Stdin != nil {
		_ = s.info.Stdin.Close()
	}
	for _, f := range s.ours {
		_ = f.Close()
	}
}
