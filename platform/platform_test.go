package platform_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

func TestParseNormalises(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "x86_64": "linux/amd64", "arm64": "linux/arm64", "aarch64": "linux/arm64",
		"linux/arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7", "armhf": "linux/arm/v7", "armel": "linux/arm/v6",
		"linux/arm/v6": "linux/arm/v6", "linux/i386": "linux/386", "windows/amd64": "windows/amd64", "linux/riscv64": "linux/riscv64",
		// An architecture alone, or with a variant, is for linux.
		"arm64/v8": "linux/arm64", "arm/v6": "linux/arm/v6", "amd64/v3": "linux/amd64/v3", "arm": "linux/arm/v7", "s390x": "linux/s390x",
		"AMD64": "linux/amd64", "Linux/ARM64/V8": "linux/arm64", "x86-64": "linux/amd64", "i386": "linux/386",
		// Variants that say nothing are left out, others stay.
		"linux/amd64/v1": "linux/amd64", "linux/amd64/v2": "linux/amd64/v2", "linux/arm64/8": "linux/arm64", "linux/arm64/v8.0": "linux/arm64",
		"linux/arm64/v8.2": "linux/arm64/v8.2", "linux/arm64/9": "linux/arm64/v9", "linux/arm/7": "linux/arm/v7", "linux/arm/v5": "linux/arm/v5",
		"linux/riscv64/rva22u64": "linux/riscv64/rva22u64", "linux/ppc64le/power9": "linux/ppc64le/power9",
		// As uname -m, Debian, the psABI and Docker Hub spell them.
		"armv7l": "linux/arm/v7", "linux/armv6l": "linux/arm/v6", "linux/armv5tel": "linux/arm/v5", "linux/armv8l": "linux/arm/v8",
		"linux/i686": "linux/386", "linux/loongarch64": "linux/loong64", "ppc64el": "linux/ppc64le", "linux/mips64el": "linux/mips64le",
		"linux/x86-64-v3": "linux/amd64/v3", "x86_64_v2": "linux/amd64/v2", "arm32v6": "linux/arm/v6", "arm64v8": "linux/arm64",
		// Systems with versions and features.
		"windows(10.0.20348.2700)/amd64": "windows(10.0.20348.2700)/amd64", "windows(10.0.17763+win32k)/amd64": "windows(10.0.17763+win32k)/amd64",
		"linux(+b+a)/amd64": "linux(+a+b)/amd64", "macos/arm64": "darwin/arm64", "wasip1/wasm": "wasip1/wasm",
	} {
		p, err := platform.Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
		} else if got := platform.Format(p); got != want {
			t.Errorf("Parse(%q) = %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"", "linux/", "a/b/c/d", "linux/amd64 x", "linux/\x1b[1m", "nonsense", "linux(/amd64", "*", "linux/*", "/", "//", "linux//v7"} {
		if p, err := platform.Parse(in); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", in, p)
		}
	}
}

func TestParseAllSplitsAndDropsDuplicates(t *testing.T) {
	all, err := platform.ParseAll([]string{"linux/amd64,arm64", "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range all {
		got = append(got, platform.Format(p))
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := platform.ParseAll([]string{"linux/amd64,"}); err == nil {
		t.Error("a trailing comma was taken")
	}
}

func TestSelect(t *testing.T) {
	child := func(s string, size int64) v1.Descriptor {
		p, err := platform.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return v1.Descriptor{Platform: &p, Size: size}
	}
	attestation := v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}
	index := []v1.Descriptor{
		{Size: 9},
		attestation, child("linux/386", 1), child("linux/arm/v6", 2), child("linux/arm/v7", 3),
		child("linux/arm64", 4), child("linux/amd64", 5), child("linux/amd64", 6), child("windows/amd64", 7),
	}
	for want, size := range map[string]int64{
		"linux/amd64": 5, "linux/arm/v7": 3, "linux/arm/v6": 2, "linux/arm64/v8": 4, "linux/amd64/v3": 5, "windows/amd64": 7, "386": 1,
	} {
		d, err := platform.Select(index, *child(want, 0).Platform)
		if err != nil || d.Size != size {
			t.Errorf("Select(%s) = %d, %v; want %d", want, d.Size, err, size)
		}
	}
	var none *platform.NoMatchError
	_, err := platform.Select(index[:5], v1.Platform{OS: "linux", Architecture: "amd64"})
	if !errors.As(err, &none) || len(none.Have) != 3 {
		t.Errorf("386 must not serve amd64: got %v", err)
	}
	if _, err := platform.Select(index[3:5], v1.Platform{OS: "linux", Architecture: "arm64"}); !errors.As(err, &none) {
		t.Errorf("arm must not serve arm64: got %v", err)
	}
}

func ExampleSelect() {
	index := []v1.Descriptor{
		{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}, Size: 428},
		{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, Size: 429},
	}
	pi, _ := platform.Parse("armhf")
	d, err := platform.Select(index, pi)
	fmt.Println(platform.Format(*d.Platform), d.Size, err)

	_, err = platform.Select(index, v1.Platform{OS: "linux", Architecture: "s390x"})
	fmt.Println(err)
	// Output:
	// linux/arm/v6 429 <nil>
	// no manifest for linux/s390x (there is linux/amd64, linux/arm/v6)
}
