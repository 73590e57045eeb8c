package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// account is an unprivileged user that stories run commands as.
type account struct {
	name     string // as scripts call it
	login    string // as the host calls it
	uid, gid uint32
	lock     *flock.Flock
}

// loginPrefix keeps our users apart from the host's own.
const loginPrefix = "wherry-e2e-"

// makeAccounts makes the two users, if we may: "plain" with nothing but an id,
// and "ranged" with a range of subordinate ids, as adduser gives to people.
func makeAccounts(ctx context.Context) (map[string]account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	lock := flock.New(filepath.Join("/tmp", loginPrefix+"users.lock"))
	if err := lock.Lock(); err != nil {
		return nil, err
	}
	accounts := map[string]account{}
	for _, name := range []string{"plain", "ranged"} {
		a, err := makeAccount(ctx, name)
		if err != nil {
			return nil, err
		}
		a.lock = lock
		accounts[name] = a
	}
	// From here on shared with other runs on this machine: the last one removes the users.
	return accounts, errors.Join(lock.Unlock(), lock.RLock())
}

func makeAccount(ctx context.Context, name string) (account, error) {
	a := account{name: name, login: loginPrefix + name}
	if _, err := user.Lookup(a.login); err != nil {
		// A system user: useradd gives those no subordinate ids by itself.
		if err := command(ctx, "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", a.login); err != nil {
			return a, err
		}
		if name == "ranged" {
			const ids = "1900000000-1900065535"
			if err := command(ctx, "usermod", "--add-subuids", ids, "--add-subgids", ids, a.login); err != nil {
				return a, err
			}
		}
	}
	u, err := user.Lookup(a.login)
	if err != nil {
		return a, err
	}
	uid, errU := strconv.ParseUint(u.Uid, 10, 32)
	gid, errG := strconv.ParseUint(u.Gid, 10, 32)
	a.uid, a.gid = uint32(uid), uint32(gid)
	return a, errors.Join(errU, errG)
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// removeAccounts removes the users unless another run still has them.
func removeAccounts(ctx context.Context, accounts map[string]account) error {
	for _, a := range accounts {
		if err := a.lock.Unlock(); err != nil {
			return err
		}
	}
	for _, a := range accounts {
		if last, err := a.lock.TryLock(); err != nil || !last {
			return err
		}
		// One that something still runs as is left for the next run to find.
		if err := command(ctx, "userdel", a.login); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return nil
}

func (a account) home(state string) string { return filepath.Join(state, "home-"+a.name) }

// store is where the user's images are, without any setting.
func (a account) store(state string) string {
	return filepath.Join(a.home(state), ".local", "share", "wherry", "store")
}

func (a account) makeHome(state string) error {
	err := os.Mkdir(a.home(state), 0o755)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return errors.Join(err, os.Chown(a.home(state), int(a.uid), int(a.gid)))
}

// environment is what differs from the script's; an empty value is as good as none.
func (a account) environment(state string) []string {
	return []string{"HOME=" + a.home(state), "USER=" + a.login, "LOGNAME=" + a.login, "WHERRY_STORE="}
}

func (a account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, NoSetGroups: false}
}

// noUserNamespaces is a program on the stories' PATH: it runs its arguments where nobody may make a user
// namespace, as on hosts that forbid it and in containers with a default seccomp profile.
const noUserNamespaces = "no-user-namespaces"

func runWithoutUserNamespaces(args []string) {
	runFiltered(noUserNamespaces, args,
		seccomp.SyscallGroup{Names: []string{"unshare", "mount", "setns"}, Action: seccomp.ActionErrno},
		seccomp.SyscallGroup{Action: seccomp.ActionErrno, NamesWithCondtions: []seccomp.NameWithConditions{cloneWith(unix.CLONE_NEWUSER)}},
	)
}
