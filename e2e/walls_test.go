package e2e

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wherry-oci/wherry"

// walls is who may import whom: a package, or a folder of them, and what must not be among all that it reaches.
var walls = []struct {
	packages string
	never    []string
}{
	{"platform", []string{
		module + "/cmd", module + "/registry", module + "/layout", module + "/build", module + "/e2e",
		"github.com/moby/buildkit", "google.golang.org/grpc", "github.com/urfave/cli",
	}},
	{"registry", []string{
		module + "/cmd", module + "/layout", module + "/build", module + "/e2e",
		"github.com/moby/buildkit", "github.com/urfave/cli", "go.etcd.io/bbolt",
	}},
	{"layout", []string{
		module + "/cmd", module + "/registry", module + "/build", module + "/e2e",
		"github.com/moby/buildkit", "github.com/containerd/containerd", "google.golang.org/grpc", "github.com/urfave/cli",
		"github.com/google/go-containerregistry/pkg/v1/remote",
	}},
	{"build/...", []string{
		module + "/cmd", module + "/registry", module + "/layout", module + "/e2e", "github.com/urfave/cli",
		"github.com/google/go-containerregistry/pkg/v1/remote", "github.com/google/go-containerregistry/pkg/v1/layout",
		"github.com/google/go-containerregistry/pkg/v1/tarball",
	}},
	{"e2e/...", []string{module + "/cmd", module + "/registry", module + "/layout", module + "/build", module + "/platform"}},
}

// TestWalls holds the import graph: what a package reaches, not only what it names. What may not be named although
// something else reaches it is in .golangci.yml.
func TestWalls(t *testing.T) {
	for _, wall := range walls {
		t.Run(strings.TrimSuffix(wall.packages, "/..."), func(t *testing.T) {
			for line := range strings.Lines(goTool(t, nil, "list", "-deps", module+"/"+wall.packages)) {
				reached := strings.TrimSpace(line)
				if slices.ContainsFunc(wall.never, func(p string) bool {
					return reached == p || strings.HasPrefix(reached, p+"/")
				}) {
					t.Errorf("%s reaches %s", wall.packages, reached)
				}
			}
		})
	}
}

// maxBinary is what people may have to download, in bytes.
const maxBinary = 46_000_000

// TestBinary checks what is released: static, at most 46 MB stripped.
func TestBinary(t *testing.T) {
	file := os.Getenv(binaryVariable)
	if file == "" {
		file = filepath.Join(t.TempDir(), "wherry")
		goTool(t, []string{"CGO_ENABLED=0"}, "build", "-trimpath", "-tags=urfave_cli_no_docs", "-buildvcs=false", "-ldflags=-s -w", "-o", file, module+"/cmd/wherry")
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxBinary {
		t.Errorf("the binary has %d bytes", info.Size())
	}
	program, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := program.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary is not static: it has a segment %v", segment.Type)
		}
	}
}

// TestOtherSystems compiles for where the tests don't run; without build there is no BuildKit in the program but what
// reads instructions and names attributes.
func TestOtherSystems(t *testing.T) {
	for _, system := range []string{"linux/arm64", "darwin/arm64", "windows/amd64"} {
		t.Run(system, func(t *testing.T) {
			goos, goarch, _ := strings.Cut(system, "/")
			env := []string{"CGO_ENABLED=0", "GOOS=" + goos, "GOARCH=" + goarch}
			packages := []string{module + "/cmd/...", module + "/registry/...", module + "/layout/...", module + "/platform/...", module + "/build"}
			goTool(t, env, append([]string{"build"}, packages...)...)
			reached := goTool(t, env, "list", "-deps", module+"/cmd/wherry")
			if has := strings.Contains(reached, "github.com/moby/buildkit/control"); has != (goos == "linux") {
				t.Errorf("BuildKit's controller in the program: %v", has)
			}
		})
	}
}

// goTool runs the go command and returns its output.
func goTool(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), env...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return string(out)
}
