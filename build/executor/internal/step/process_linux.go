package step

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
)

// NewProcess boils the process of an OCI spec down. With single only id 0 exists: the process keeps it, and what
// changes ids is answered with success.
func NewProcess(spec *specs.Spec, single bool) (Process, error) {
	pr := spec.Process
	p := Process{
		Terminal: pr.Terminal, Args: pr.Args, Env: DedupEnv(pr.Env), Cwd: pr.Cwd,
		UID: pr.User.UID, GID: pr.User.GID, Groups: pr.User.AdditionalGids,
		Caps: NewCapSets(pr.Capabilities), NoNewPrivs: pr.NoNewPrivileges,
	}
	if single {
		p.UID, p.GID, p.Groups, p.KeepGroups = 0, 0, nil, true
	}
	var err error
	if p.Rlimits, err = rlimits(pr.Rlimits); err != nil {
		return p, err
	}
	if p.Seccomp, err = seccomp.Compile(spec.Linux.Seccomp, single); err != nil {
		return p, fmt.Errorf("seccomp profile: %w", err)
	}
	return p, nil
}

// DedupEnv keeps the last value of each name, as runc does, and drops entries that are no assignment.
func DedupEnv(env []string) []string {
	last := make(map[string]int, len(env))
	for i, e := range env {
		if name, _, ok := strings.Cut(e, "="); ok && name != "" {
			last[name] = i
		}
	}
	out := make([]string, 0, len(last))
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); name != "" && last[name] == i {
			if strings.Contains(e, "=") {
				out = append(out, e)
			}
		}
	}
	return out
}

func rlimits(list []specs.POSIXRlimit) ([]Rlimit, error) {
	known := map[string]int{
		"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
		"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE,
		"RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
		"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
	}
	out := make([]Rlimit, 0, len(list))
	for _, r := range list {
		n, ok := known[r.Type]
		if !ok {
			return nil, fmt.Errorf("unknown ulimit %q", strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_")))
		}
		out = append(out, Rlimit{Resource: n, Soft: r.Soft, Hard: r.Hard})
	}
	return out, nil
}
