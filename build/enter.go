//go:build linux

package build

import (
	"os"
	"path/filepath"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/userns"
)

// Init has to be the first thing the program does: when this process is one that
// Build or Enter has started, it runs that part and never returns.
func Init() {
	switch os.Args[0] {
	case executor.InitArg0:
		executor.Init()
	case userns.InitArg0:
		userns.Init()
	}
}

// Enter runs this program again, with the same arguments, where it may mount: in a
// mount namespace of its own and, for an ordinary user, in a user namespace. It
// returns the exit code of that run; entered is false if the process is there already
// and may go on. The error is a [*userns.NotPermittedError].
func Enter(notice func(string)) (code int, entered bool, err error) {
	code, entered, err = userns.Enter(userns.Options{Notice: notice})
	if entered || err != nil {
		return code, entered, err
	}
	if userns.Current() == userns.Single {
		err = userns.FakeOwnership()
	}
	return 0, false, err
}

// stateFolder keeps what was written under one mapping of ids from the others.
func stateFolder(dir string, m userns.Mapping) string {
	return filepath.Join(dir, map[userns.Mapping]string{
		userns.None: "root", userns.Range: "userns", userns.Single: "single-id",
	}[m])
}
