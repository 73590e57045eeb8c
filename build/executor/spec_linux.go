package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	containerdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/util/rootless/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/selinux"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// specInput is what the OCI spec of a step is made from, next to its Meta.
type specInput struct {
	id, rootfs         string
	rootReadonly       bool
	resolvConf, hosts  string
	uid, gid           uint32
	supplementary      []uint32
	mounts             []executor.Mount
	net                network.Namespace
	rootless, single   bool
	sharedPIDNamespace bool
	labels             selinux.Labels
}

// generatePlan lets BuildKit write the OCI spec and boils it down. The cleanup releases the mounts' sources.
func generatePlan(ctx context.Context, meta executor.Meta, in specInput) (*plan, func(), error) {
	opts := []containerdoci.SpecOpts{oci.WithUIDGID(in.uid, in.gid, in.supplementary)}
	if meta.ReadonlyRootFS {
		opts = append(opts, containerdoci.WithRootFSReadonly())
	}
	mode := oci.ProcessSandbox
	if in.sharedPIDNamespace {
		mode = oci.NoProcessSandbox
	}
	// A mount below another one has to come after it, in whatever order the Dockerfile names them.
	mounts := slices.Clone(in.mounts)
	for i := range mounts {
		mounts[i].Src = in.labels.Source(mounts[i].Src)
	}
	slices.SortStableFunc(mounts, func(a, b executor.Mount) int { return strings.Compare(a.Dest, b.Dest) })
	spec, cleanup, err := oci.GenerateSpec(ctx, meta, mounts, in.id, in.resolvConf, in.hosts, in.net, "", mode, nil, "", false, "", nil, opts...)
	if err != nil {
		return nil, nil, missingSource(err, mounts)
	}
	if in.rootless {
		if _, err := specconv.ToRootless(spec); err != nil {
			cleanup()
			return nil, nil, err
		}
	}
	spec.Root.Path = in.rootfs
	spec.Root.Readonly = spec.Root.Readonly || in.rootReadonly
	spec.Process.Terminal = meta.Tty
	p, err := newPlan(spec, meta.SecurityMode == pb.SecurityMode_INSECURE, in.single)
	if err != nil {
		cleanup()
		return nil, nil, err
	}
	p.SELinux = in.labels
	for i := range p.Mounts {
		p.Mounts[i].takeLabel(in.labels)
	}
	return p, cleanup, nil
}

// newPlan boils an OCI spec down to what the child has to do.
func newPlan(spec *specs.Spec, insecure, single bool) (*plan, error) {
	p := &plan{
		Rootfs: spec.Root.Path, RootReadonly: spec.Root.Readonly, Devices: insecure,
		Masked: spec.Linux.MaskedPaths, Readonly: spec.Linux.ReadonlyPaths,
		Hostname: spec.Hostname,
		Nodes:    deviceNodes(spec.Linux.Devices),
	}
	var err error
	if p.Process, err = step.NewProcess(spec, single); err != nil {
		return nil, err
	}
	if p.CloneFlags, p.NetNS, err = namespaceFlags(spec.Linux.Namespaces); err != nil {
		return nil, err
	}
	p.CgroupNS = p.CloneFlags&unix.CLONE_NEWCGROUP != 0
	p.CloneFlags &^= unix.CLONE_NEWCGROUP
	p.Loopback = p.CloneFlags&unix.CLONE_NEWNET != 0
	for _, m := range spec.Mounts {
		p.Mounts = append(p.Mounts, newMountPlan(m, insecure, single))
	}
	return p, nil
}

// namespaceFlags says which namespaces to make, and which network namespace to join.
func namespaceFlags(list []specs.LinuxNamespace) (flags uintptr, netns string, err error) {
	known := map[specs.LinuxNamespaceType]uintptr{
		specs.PIDNamespace: unix.CLONE_NEWPID, specs.MountNamespace: unix.CLONE_NEWNS, specs.IPCNamespace: unix.CLONE_NEWIPC,
		specs.UTSNamespace: unix.CLONE_NEWUTS, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.CgroupNamespace: unix.CLONE_NEWCGROUP,
	}
	for _, n := range list {
		f, ok := known[n.Type]
		switch {
		case !ok:
			return 0, "", fmt.Errorf("namespace type %q is not supported", n.Type)
		case n.Path == "":
			flags |= f
		case n.Type == specs.NetworkNamespace:
			netns = n.Path
		default:
			return 0, "", fmt.Errorf("joining a %s namespace is not supported", n.Type)
		}
	}
	return flags, netns, nil
}

// deviceNodes lists the nodes that every step gets, then those that the spec adds (--security=insecure), which are
// left out where the host has none, since their drivers may not be loaded.
func deviceNodes(more []specs.LinuxDevice) []nodePlan {
	nodes := []nodePlan{
		{Path: "/dev/null", Major: 1, Minor: 3},
		{Path: "/dev/zero", Major: 1, Minor: 5},
		{Path: "/dev/full", Major: 1, Minor: 7},
		{Path: "/dev/random", Major: 1, Minor: 8},
		{Path: "/dev/urandom", Major: 1, Minor: 9},
		{Path: "/dev/tty", Major: 5, Minor: 0},
	}
	for _, d := range more {
		nodes = append(nodes, nodePlan{Path: d.Path, Block: d.Type == "b", Major: uint32(d.Major), Minor: uint32(d.Minor), Optional: true})
	}
	return nodes
}
