package userns

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// forwardSignals passes on what this process is sent until the returned function is called. The child is in the same
// process group, so what the terminal sends to the foreground reaches it without us: a second interrupt would look
// like an impatient user.
func forwardSignals(c *os.Process) (stop func()) {
	ch, done := make(chan os.Signal, 16), make(chan struct{})
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGWINCH, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		defer close(done)
		for sig := range ch {
			if sig != unix.SIGTERM && sig != unix.SIGUSR1 && sig != unix.SIGUSR2 && inForeground() {
				continue
			}
			_ = c.Signal(sig) // it may have ended meanwhile
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
		<-done
	}
}

// inForeground says whether this process group is the one that its terminal sends signals to.
func inForeground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // only asked
	pgrp, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}
