package selinux

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"
)

// policyFS is where the kernel answers questions about the policy in force (selinuxfs). Systems before 2011 had it elsewhere.
const policyFS = "/sys/fs/selinux"

// access is what a process labelled source wants to do with a target.
type access struct {
	source, target string
	class          string // what the target is: "file", "process"
	rights         []string
}

// refusal is what a policy does not allow.
type refusal struct {
	access
	denied []string
}

func (e *refusal) Error() string {
	return fmt.Sprintf("the policy does not allow %s %s:%s { %s }", typeOf(e.source), typeOf(e.target), e.class, strings.Join(e.denied, " "))
}

// missing says what the policy does not allow of all that it takes for a process of the label own to start steps of the
// label process, which see files of the label files; within a user namespace if userNS is set.
func missing(own, process, files string, userNS bool) error {
	needed := []access{
		{own, own, "process", []string{"setexec", "setkeycreate", "setsockcreate"}},
		// Without the last two a step has no death signal, and other limits than it should.
		{own, process, "process", []string{"transition", "sigkill", "noatsecure", "rlimitinh"}},
		{own, files, "filesystem", []string{"relabelto"}},
		{own, files, "dir", []string{"relabelto", "search", "write", "add_name"}},
		{own, files, "fifo_file", []string{"create", "open", "read", "write"}},
		{process, files, "file", []string{"entrypoint", "execute", "read"}},
		{process, files, "fifo_file", []string{"read", "write"}},
		{process, own, "fd", []string{"use"}},
		// What a step has of these it has to have under each policy: or packages could not be installed. Those of another
		// platform are always in a user namespace.
		{process, process, "cap_userns", capabilities()},
	}
	if !userNS {
		needed = append(needed, access{process, process, "capability", capabilities()})
	}
	if set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && set == 1 {
		needed = append(needed, access{own, process, "process2", []string{"nnp_transition"}})
	}
	for _, a := range needed {
		denied, err := a.denied()
		if err != nil {
			return err
		}
		if len(denied) > 0 {
			return &refusal{a, denied}
		}
	}
	return nil
}

// capabilities are those of root in a step, which are docker's.
func capabilities() []string {
	return []string{
		"audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "net_bind_service", "net_raw",
		"setfcap", "setgid", "setpcap", "setuid", "sys_chroot",
	}
}

// denied asks the kernel which of the rights are not given. Those that the policy does not know are left to the kernel,
// which gives them unless the policy says otherwise.
func (a access) denied() (denied []string, err error) {
	class, err := policyNumber(path.Join("class", a.class, "index"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	answer, err := ask("access", fmt.Sprintf("%s %s %d", a.source, a.target, class))
	if err != nil {
		return nil, err
	}
	allowed, err := strconv.ParseUint(strings.SplitN(answer, " ", 2)[0], 16, 32)
	if err != nil {
		return nil, fmt.Errorf("SELinux's answer %q: %w", answer, err)
	}
	for _, right := range a.rights {
		bit, err := policyNumber(path.Join("class", a.class, "perms", right))
		if err == nil && allowed&(1<<(bit-1)) == 0 {
			denied = append(denied, right)
		} else if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	}
	return denied, nil
}

// policyNumber reads a number, from 1 on, that the policy gives to one of its terms.
func policyNumber(name string) (uint64, error) {
	text, err := os.ReadFile(path.Join(policyFS, name))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return n, err
}

// ask puts a question to one of policyFS's files.
func ask(file, question string) (string, error) {
	f, err := os.OpenFile(path.Join(policyFS, file), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.WriteString(question); err != nil {
		return "", err
	}
	answer := make([]byte, 4096)
	n, err := f.Read(answer)
	return string(answer[:n]), err
}

// inherited says whether a file that a process makes in a folder has the folder's label.
func inherited(process, folder string) bool {
	made, err := selinux.ComputeCreateContext(process, folder, "file")
	return err == nil && made == folder
}

// hint is the command that has the policy allow what it has refused: by what it can be told to allow (Fedora's and that
// of the reference policy), or by having it take this program for a container engine.
func hint(own string, refused error) string {
	const engine = "container_runtime"
	r, ok := errors.AsType[*refusal](refused)
	switch {
	case !ok:
		return ""
	case r.class == "capability" || r.class == "cap_userns":
		return switchesOn("virt_sandbox_use_all_caps", "container_use_host_all_caps", "container_use_userns_all_caps")
	case typeOf(own) == engine+"_t" || selinux.SecurityCheckContext("system_u:object_r:"+engine+"_exec_t:s0") != nil:
		return ""
	}
	return "sudo chcon -t " + engine + "_exec_t $(command -v wherry)"
}

// switchesOn is the command that sets those of the booleans that the policy has and are off.
func switchesOn(names ...string) string {
	off := slices.DeleteFunc(names, func(name string) bool {
		state, err := os.ReadFile(path.Join(policyFS, "booleans", name)) // "0 0": now, and when pending ones are committed
		return err != nil || !bytes.HasPrefix(state, []byte("0"))
	})
	if len(off) == 0 {
		return ""
	}
	return "sudo setsebool -P " + strings.Join(off, "=on ") + "=on"
}
