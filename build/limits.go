//go:build linux

package build

import (
	"fmt"
	"strconv"

	"github.com/moby/buildkit/solver/pb"

	"github.com/wherry-oci/wherry/build/executor"
)

// checkLimits says early that there can be no limits. A runtime has its own ways to groups.
func (s State) checkLimits(r Request) error {
	if r.Runtime != "" || r.Steps.CgroupParent == "" && len(r.Steps.Resources) == 0 {
		return nil
	}
	if !s.mounts() {
		return fmt.Errorf("limits for steps need the isolation %q, not %q", IsolationNamespaces, s.Isolation)
	}
	return executor.LimitsPossible(r.Steps.CgroupParent, limits(r.Steps.Resources))
}

// limits reads what the frontend will: it is for the frontend to say what is no number.
func limits(by map[string]string) *pb.LinuxResources {
	number := func(key string) int64 {
		n, _ := strconv.ParseInt(by[key], 10, 64)
		return n
	}
	return &pb.LinuxResources{
		Memory: number("memory"), MemorySwap: number("memswap"),
		CpuShares: uint64(max(number("cpushares"), 0)), CpuQuota: number("cpuquota"), CpuPeriod: uint64(max(number("cpuperiod"), 0)),
		CpusetCpus: by["cpusetcpus"], CpusetMems: by["cpusetmems"],
	}
}
