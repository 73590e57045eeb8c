package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// cmdTerminal: [!] terminal ANSWERS PROGRAM ARG... runs a program at a terminal. Each line of the file ANSWERS is "PROMPT:
// ANSWER"; the answer is typed when the prompt shows. What stood on the screen is stdout.
func cmdTerminal(ts *testscript.TestScript, neg bool, args []string) {
	master, slave, err := openTerminal()
	ts.Check(err)
	var seen screen
	done := make(chan struct{})
	go func() {
		defer close(done)
		seen.follow(master)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	cmd := prepare(ctx, ts, args[1:])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Credential: cmd.SysProcAttr.Credential}
	ts.Check(cmd.Start())
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		prompt, answer, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if err := seen.await(ctx, prompt); err != nil {
			_ = cmd.Process.Kill()
			ts.Fatalf("%v", err)
		}
		_, err := master.WriteString(answer + "\n")
		ts.Check(err)
	}
	code := exitCode(ctx, ts, cmd.Wait())
	// The screen ends, with EIO, when nobody has the terminal open any more.
	ts.Check(slave.Close())
	<-done
	ts.Check(master.Close())
	fmt.Fprint(ts.Stdout(), seen.text())
	expect(ts, neg, code)
}

func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// screen is all that was written to a terminal.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) follow(f *os.File) {
	chunk := make([]byte, 4096)
	for {
		n, err := f.Read(chunk)
		s.mu.Lock()
		s.buf.Write(chunk[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// await returns once text stands on the screen, and a little later, so that the program has changed the terminal's mode.
func (s *screen) await(ctx context.Context, text string) error {
	for !strings.Contains(s.text(), text) {
		if ctx.Err() != nil {
			return fmt.Errorf("no %q on the screen, only:\n%s", text, s.text())
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	return nil
}
