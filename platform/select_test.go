package platform_test

import (
	"errors"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/platform"
)

// indexOf are descriptors for these platforms, each with its place for a size. "-" has
// no platform, "{}" an empty one, "?" is an attestation.
func indexOf(t testing.TB, list string) []v1.Descriptor {
	t.Helper()
	var index []v1.Descriptor
	for i, s := range strings.Fields(list) {
		d := v1.Descriptor{Size: int64(i)}
		switch s {
		case "-":
		case "{}":
			d.Platform = &v1.Platform{}
		case "?":
			d.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
		default:
			p, err := platforms.Parse(s) // as it stands in the index, not normalised by us
			if err != nil {
				t.Fatal(err)
			}
			d.Platform = &v1.Platform{
				OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
			}
		}
		index = append(index, d)
	}
	return index
}

// What an index has, what is asked for, and which one it is; -1 is none.
func TestSelectTheBest(t *testing.T) {
	for _, c := range []struct {
		have, want string
		best       int64
	}{
		{"linux/amd64 linux/amd64/v3 linux/amd64/v2", "linux/amd64/v4", 1},
		{"linux/amd64 linux/amd64/v3 linux/amd64/v2", "linux/amd64/v2", 2},
		{"linux/amd64/v2 linux/amd64/v1", "linux/amd64", 1},
		{"linux/amd64/v2", "linux/amd64", -1},
		{"linux/386 linux/arm64", "linux/amd64", -1},
		{"linux/arm/v6 linux/arm/v5", "linux/arm/v7", 0},
		{"linux/arm/v7", "linux/arm/v6", -1},
		{"linux/arm/v7 linux/arm/v8", "linux/arm/v8", 1},
		{"linux/arm/v7", "linux/arm64", -1},
		{"linux/arm64/v8.1 linux/arm64 linux/arm64/v9", "linux/arm64/v9", 2},
		{"linux/arm64/v8.1 linux/arm64", "linux/arm64/v9", 0},
		{"linux/arm64/v8.6 linux/arm64/v8", "linux/arm64/v9", 1},
		{"linux/arm64/v8.6 linux/arm64/v8", "linux/arm64", 1},
		{"linux/arm64", "linux/arm64/v10", 0}, // newer than what is known
		{"linux/arm64/v9.8", "linux/arm64/v9.8", 0},
		{"linux/riscv64 linux/riscv64/rva20u64", "linux/riscv64/rva23u64", 1},
		{"linux/riscv64", "linux/riscv64/rva22u64", 0},
		{"linux/riscv64/rva23u64", "linux/riscv64", -1},
		{"linux/riscv64/rva23u64", "linux/riscv64/rva22u64", -1},
		{"linux/ppc64le/power9 linux/ppc64le/power8", "linux/ppc64le/power10", 0},
		{"linux/aarch64 linux/x86_64", "linux/amd64", 1},
		{"linux/amd64 linux/amd64", "linux/amd64", 0},
		{"? - {} linux/amd64", "linux/amd64", 3},
		{"? - {}", "linux/amd64", -1},
		{"linux/amd64 windows(10.0.17763.1)/amd64 windows(10.0.20348.1)/amd64", "windows/amd64", 1},
		{"windows(10.0.17763.1)/amd64 windows(10.0.20348.1)/amd64", "windows(10.0.20348.9)/amd64", 1},
		{"windows(10.0.17763.1)/amd64 windows(10.0.20348.1)/amd64", "windows(10.0.26100.1)/amd64", 1},
		{"windows(10.0.20348.1)/amd64 windows(10.0.26100.1)/amd64", "windows(10.0.26100.1)/amd64", 1},
		{"windows(10.0.20348.1)/amd64 windows(10.0.26100.1)/amd64", "windows(10.0.26100.2)/amd64", 0},
		{"windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64", -1},
		{"windows(10.0.17763.1+win32k)/amd64", "windows/amd64", 0},
		{"linux(+gpu)/amd64 linux/amd64", "linux/amd64", 1},
		{"linux/amd64 linux(+gpu)/amd64", "linux(+gpu+npu)/amd64", 1},
		{"linux(+gpu)/amd64", "linux/amd64", -1},
	} {
		want, err := platform.Parse(c.want)
		if err != nil {
			t.Fatal(err)
		}
		got := int64(-1)
		d, err := platform.Select(indexOf(t, c.have), want)
		if err == nil {
			got = d.Size
		} else if !errors.As(err, new(*platform.NoMatchError)) {
			t.Errorf("%q of %q: %v", c.want, c.have, err)
		}
		if got != c.best {
			t.Errorf("%q of %q is number %d, not %d", c.want, c.have, got, c.best)
		}
	}
}

// byContainerd selects as images.Manifest of containerd does, kept to the system and
// the architecture: it would run 386 on amd64, and arm on arm64.
func byContainerd(index []v1.Descriptor, want ocispecs.Platform) int64 {
	only := platforms.Only(want)
	oci := func(d v1.Descriptor) ocispecs.Platform {
		return ocispecs.Platform{
			OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant,
			OSVersion: d.Platform.OSVersion, OSFeatures: d.Platform.OSFeatures,
		}
	}
	fits := slices.DeleteFunc(slices.Clone(index), func(d v1.Descriptor) bool {
		return d.Platform == nil || platforms.Normalize(oci(d)).Architecture != platforms.Normalize(want).Architecture || !only.Match(oci(d))
	})
	if len(fits) == 0 {
		return -1
	}
	sort.SliceStable(fits, func(i, j int) bool { return only.Less(oci(fits[i]), oci(fits[j])) })
	return fits[0].Size
}

// Wherever containerd finds one, it is the same one, in whatever order they come.
func TestSelectAsContainerdDoes(t *testing.T) {
	pool := "linux/amd64 linux/amd64/v2 linux/amd64/v3 linux/386 linux/arm linux/arm/v6 linux/arm/v5 linux/arm/v8 linux/arm64 linux/arm64/v8.4 linux/arm64/v9 " +
		"linux/riscv64 linux/riscv64/rva22u64 windows(10.0.17763.1)/amd64 windows(10.0.20348.1)/amd64 windows(10.0.20348.1+win32k)/amd64 linux(+gpu)/amd64 darwin/arm64 " +
		"linux/s390x linux/ppc64le"
	wants := append(strings.Fields(pool), "linux/amd64/v4", "linux/arm/v7", "linux/arm64/v9.5", "windows/amd64", "windows(10.0.26100.1)/amd64", "linux(+gpu+npu)/amd64/v3")
	all := strings.Fields(pool)
	for turn := range all {
		for size := 1; size <= len(all); size += 3 {
			var some []string
			for i := range size {
				some = append(some, all[(turn+i*7)%len(all)])
			}
			index := indexOf(t, strings.Join(some, " "))
			for _, s := range wants {
				theirs, err := platforms.Parse(s)
				if err != nil {
					t.Fatal(err)
				}
				want, err := platform.Parse(s)
				if err != nil {
					t.Fatal(err)
				}
				expected := byContainerd(index, theirs)
				d, err := platform.Select(index, want)
				if expected >= 0 && (err != nil || d.Size != expected) {
					t.Errorf("%s of %v: %d (%v), containerd takes %d", s, some, d.Size, err, expected)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"linux/amd64", "arm64/v8", "armhf", "x86-64-v3", "windows(10.0.17763+win32k)/amd64", "linux(%2B+a%25b)/arm/v7", "macos", "i686", "//", "linux(", "\x1b[1m", "0(%00)/0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := platform.Parse(s)
		if err != nil {
			return
		}
		if p.OS == "" || p.Architecture == "" {
			t.Fatalf("%q is %+v", s, p)
		}
		text := platform.Format(p)
		again, err := platform.Parse(text)
		if err != nil || !again.Equals(p) {
			t.Fatalf("%q is %+v, written %q, which is %+v (%v)", s, p, text, again, err)
		}
		if d, err := platform.Select([]v1.Descriptor{{Platform: &p}}, p); err != nil {
			t.Fatalf("%q does not serve itself: %v %v", s, d, err)
		}
	})
}
