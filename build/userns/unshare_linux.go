package userns

import "golang.org/x/sys/unix"

// ShareFS makes every unshare(CLONE_FS) of this process succeed without doing anything: its threads keep one working
// folder and one umask. It is for containers, which by default forbid unshare whatever it is asked for. It can't be
// undone, and nothing that this process starts can gain privileges any more by being run.
func ShareFS() error {
	return answerZero("share the file system's state", answer{call: "unshare", argument: unix.CLONE_FS})
}
