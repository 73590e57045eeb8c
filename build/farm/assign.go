package farm

import (
	"slices"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/platform"
)

// Rank is how well a node is suited for a platform.
type Rank int

// The ranks, the best first.
const (
	Told     Rank = iota // the builder says that the node is for it
	Native               // the node's own processor runs it
	Emulated             // the node says that it can run it
	Unknown              // the node does not say so: only what copies can be built
)

func (r Rank) String() string {
	return [...]string{"as the builder says", "natively", "by emulation", "but its steps (RUN) can't be run there"}[r]
}

// Part is what one node builds.
type Part struct {
	Conn      *Conn
	Platforms []v1.Platform
	Ranks     []Rank // of each
}

// Rank is how well the node is suited for p.
func (c *Conn) Rank(p v1.Platform) Rank {
	if c.Node.isFor(p) {
		return Told
	}
	list := c.Platforms()
	if !slices.ContainsFunc(list, func(have v1.Platform) bool { return platform.Matches(p, have) }) {
		return Unknown
	}
	own := platforms.Only(ocispecs.Platform{OS: list[0].OS, Architecture: list[0].Architecture, Variant: list[0].Variant})
	if own.Match(platforms.Normalize(ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})) {
		return Native
	}
	return Emulated
}

// isFor says whether the builder names the platform for the node.
func (n Node) isFor(p v1.Platform) bool {
	return slices.ContainsFunc(n.Platforms, func(told v1.Platform) bool { return platform.Matches(p, told) })
}

// Assign gives each platform to the node that suits it best: of several to the one that
// has the fewest so far, and then to the first. The platforms of a part have their order.
func Assign(wanted []v1.Platform, conns []*Conn) []Part {
	parts := make([]Part, len(conns))
	for i, c := range conns {
		parts[i].Conn = c
	}
	for _, p := range wanted {
		best := 0
		for i := range parts {
			a, b := parts[i].Conn.Rank(p), parts[best].Conn.Rank(p)
			if a < b || a == b && len(parts[i].Platforms) < len(parts[best].Platforms) {
				best = i
			}
		}
		parts[best].Platforms = append(parts[best].Platforms, p)
		parts[best].Ranks = append(parts[best].Ranks, parts[best].Conn.Rank(p))
	}
	return slices.DeleteFunc(parts, func(p Part) bool { return len(p.Platforms) == 0 })
}

// Has says whether the part has the platform.
func (p Part) Has(one ocispecs.Platform) bool {
	return slices.ContainsFunc(p.Platforms, func(have v1.Platform) bool { return platform.Matches(fromOCI(one), have) })
}
