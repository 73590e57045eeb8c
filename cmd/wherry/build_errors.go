//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/bake"
	"github.com/wherry-oci/wherry/build/userns"
)

// hintForBuild is the command that helps where a build failed, in a pod of Kubernetes the setting; "" if none is known.
func hintForBuild(err error, pod bool) string {
	if hint := hintForFarm(err); hint != "" {
		return hint
	}
	if _, ok := errors.AsType[*build.NoDockerfileError](err); ok {
		return program + " build -f PATH/TO/DOCKERFILE CONTEXT"
	}
	if _, ok := errors.AsType[*bake.NoTargetError](err); ok {
		return program + " bake --list targets"
	}
	if _, ok := errors.AsType[*build.NoGitError](err); ok {
		return "apt-get install git (or your system's way), or clone it and build the folder"
	}
	if _, ok := errors.AsType[*build.NoEpochError](err); ok {
		return fmt.Sprintf("SOURCE_DATE_EPOCH=0 %s build --reproducible ..., or the seconds that git log -1 --format=%%ct prints elsewhere", program)
	}
	if _, ok := errors.AsType[*build.NotDelegatedError](err); ok {
		return fmt.Sprintf("systemd-run --user --scope -p Delegate=yes %s build ..., where systemd is", program)
	}
	if e, ok := errors.AsType[*build.NoStepsError](err); ok {
		return hintForSteps(e, pod)
	}
	if e, ok := errors.AsType[*build.NoEmulatorError](err); ok {
		return hintForEmulator(e)
	}
	if e, ok := errors.AsType[*build.NoChrootError](err); ok {
		return e.Hint
	}
	if e, ok := errors.AsType[*userns.NotPermittedError](err); ok {
		return e.Hint
	}
	if e, ok := errors.AsType[*build.RefusedError](err); ok && len(e.Needs) > 0 {
		return fmt.Sprintf("%s build --allow %s ...", program, strings.Join(e.Needs, " --allow "))
	}
	if e, ok := errors.AsType[*build.StartError](err); ok {
		return map[string]string{
			"secret": program + " build --secret id=ID,src=FILE ...",
			"ssh":    program + " build --ssh default ...",
		}[e.Missing]
	}
	e, ok := errors.AsType[*build.FromError](err)
	if !ok {
		return ""
	}
	if e.Image == build.DefaultScanner {
		return fmt.Sprintf("%s build --sbom generator=IMAGE ..., with a scanner that can be had", program)
	}
	switch e.Reason {
	case build.FromDenied:
		return fmt.Sprintf("%s login %s", program, e.Host)
	case build.FromNoPlatform:
		return fmt.Sprintf("%s build --platform OS/ARCH ...", program)
	case build.FromNotFound, build.FromUnreachable:
		return fmt.Sprintf("%s pull %s, or %[1]s load -i ARCHIVE that holds it", program, e.Image)
	}
	return ""
}

// What lets steps be run in a pod. Whose policy allows neither may have a seccomp profile of its nodes' own.
const (
	podRoot       = "in the pod's spec: securityContext: {runAsUser: 0} of the container, with the default capabilities"
	podNamespaces = "in the pod's spec: hostUsers: false, and securityContext: {seccompProfile: {type: Unconfined}} of the container"
)

// hintForSteps is what would let a build run its steps.
func hintForSteps(e *build.NoStepsError, pod bool) string {
	refused, ok := errors.AsType[*userns.NotPermittedError](e.Lower)
	switch {
	case !ok:
		return program + " build --isolation auto ..."
	case os.Geteuid() != 0 && refused.Container && pod:
		return podRoot + " (root runs steps by chroot), or " + podNamespaces
	case os.Geteuid() != 0 && refused.Container:
		return "docker run --user root ... (root runs steps by chroot), or " + refused.Hint
	}
	return refused.Hint
}
