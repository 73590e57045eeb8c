package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wherry-oci/wherry/e2e/base"
	"github.com/wherry-oci/wherry/e2e/testreg"
)

// binary, when set, is a wherry to test instead of one compiled here.
const binaryVariable = "WHERRY_E2E_BINARY"

// baseVariable, when set, is an OCI layout with the base images, for where nothing can be compiled.
const baseVariable = "WHERRY_E2E_BASE"

// suite is what all stories share.
type suite struct {
	dir      string // readable for everyone; holds bin/
	accounts map[string]account
	skips    skips
	scripts  map[string]string // files of stories, by their names
	base     func() (v1.ImageIndex, error)
	foreign  func() (v1.ImageIndex, error) // the base for more platforms
	// toolboxRoot is the base as a folder, for containers.
	toolboxRoot func() (string, error)
	noBuild     func() string // why nothing can be built here; "" if builds work
}

func (s *suite) bin() string { return filepath.Join(s.dir, "bin") }

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case noUserNamespaces:
		runWithoutUserNamespaces(os.Args[1:])
	case noMounts:
		runWithoutMounts(os.Args[1:])
	case otherMachine:
		runOnMachine(os.Args[1:])
	case insideMachine:
		beMachine(os.Args[1:])
	}
	runStub()
	os.Exit(m.Run())
}

// TestStories runs every script in testdata but those of TestFaults.
func TestStories(t *testing.T) { runScripts(t, scripts(t, false)) }

func runScripts(t *testing.T, files []string) {
	t.Helper()
	s, err := newSuite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.scripts = map[string]string{}
	for _, file := range files {
		s.scripts[strings.TrimSuffix(filepath.Base(file), ".txtar")] = file
	}
	// The stories are parallel subtests: this runs when the last has ended.
	t.Cleanup(func() {
		s.skips.print(os.Stderr)
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	testscript.Run(t, testscript.Params{
		Files: files, Setup: s.setup, Cmds: s.commands(), Condition: s.condition, RequireUniqueNames: true,
	})
}

func newSuite(ctx context.Context) (*suite, error) {
	dir, err := os.MkdirTemp("", "wherry-e2e-")
	if err != nil {
		return nil, err
	}
	s := &suite{dir: dir, base: sync.OnceValues(func() (v1.ImageIndex, error) {
		if ready := os.Getenv(baseVariable); ready != "" {
			return layout.ImageIndexFromPath(ready)
		}
		return base.Index(context.Background())
	})}
	s.foreign = sync.OnceValues(func() (v1.ImageIndex, error) { return base.IndexFor(context.Background(), base.Foreign()) })
	s.toolboxRoot = sync.OnceValues(s.unpackToolbox)
	s.noBuild = sync.OnceValue(s.tryBuild)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(s.bin(), 0o755)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{noUserNamespaces, noMounts, otherMachine} {
		if err := copyFile(self, filepath.Join(s.bin(), name), 0o755); err != nil {
			return nil, err
		}
	}
	if err := s.wherry(ctx); err != nil {
		return nil, err
	}
	s.accounts, err = makeAccounts(ctx)
	return s, err
}

// wherry puts the program under test into bin/, as it is released: static and stripped.
func (s *suite) wherry(ctx context.Context) error {
	target := filepath.Join(s.bin(), "wherry")
	if ready := os.Getenv(binaryVariable); ready != "" {
		return copyFile(ready, target, 0o755)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags=urfave_cli_no_docs", "-buildvcs=false", "-ldflags=-s -w", "-o", target, "../cmd/wherry")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build wherry: %w\n%s", err, out)
	}
	return nil
}

func (s *suite) close() error {
	return errors.Join(removeTree(context.Background(), s.dir), removeTree(context.Background(), s.containerRoot()), removeAccounts(context.Background(), s.accounts))
}

// setup gives a story its own home, store and configuration, apart from its files, so that "." is a clean build
// context; and makes all of that reachable for other users.
func (s *suite) setup(env *testscript.Env) error {
	if err := s.skipUnbuildable(env.T()); err != nil {
		return err
	}
	state, err := os.MkdirTemp(s.dir, "s")
	if err != nil {
		return err
	}
	repository, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	home, store, tmp := filepath.Join(state, "home"), filepath.Join(state, "store"), filepath.Join(state, "tmp")
	err = errors.Join(
		os.Chmod(filepath.Dir(env.WorkDir), 0o711),
		os.Chmod(env.WorkDir, 0o777|os.ModeSticky), os.Remove(filepath.Join(env.WorkDir, ".tmp")),
		os.Chmod(state, 0o755), os.Mkdir(home, 0o755), os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o777|os.ModeSticky),
	)
	env.Vars = append(
		env.Vars,
		"PATH="+s.bin()+string(os.PathListSeparator)+os.Getenv("PATH"),
		"REPO="+repository, "STATE="+state, "TMPDIR="+tmp, "HOME="+home, "WHERRY_STORE="+store, "STORE="+store,
		// Never a name from the host that a story runs on.
		"XDG_RUNTIME_DIR=", "XDG_DATA_HOME=", "XDG_CONFIG_HOME=", "DOCKER_CONFIG=", "REGISTRY_AUTH_FILE=",
	)
	env.Values[storyKey{}] = &story{suite: s, t: env.T(), registries: map[string]*endpoint{}, hubs: map[string]*testreg.Hub{}, nodes: map[string]*node{}}
	return err
}

// storyKey is where a story stands in testscript's values.
type storyKey struct{}

// story is what the commands of one script share.
type story struct {
	suite      *suite
	t          testscript.T
	registries map[string]*endpoint
	hubs       map[string]*testreg.Hub
	nodes      map[string]*node
}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// commands are the words that scripts have beyond testscript's own; each stands in the file named after its subject.
func (s *suite) commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// run_test.go
		"as": cmdAs, "contained": cmdContained, "code": cmdCode, "refused": cmdRefused, "killed": cmdKilled, "parallel": cmdParallel,
		// registry_test.go
		"registry": cmdRegistry, "debian-registry": cmdDebianRegistry, "publish": cmdPublish,
		"requests": cmdRequests, "published": cmdPublished, "shown": cmdShown, "sent": cmdSent,
		// copy_test.go
		"sign": cmdSign, "referrers": cmdReferrers, "received": cmdReceived,
		// hub_test.go
		"hub": cmdHub, "asked": cmdAsked,
		// image_test.go
		"base": cmdBase, "archive": cmdArchive, "validate": cmdValidate, "image": cmdImage, "names": cmdNames, "seal": cmdSeal,
		// host_test.go
		"need": cmdNeed, "capture": cmdCapture, "tmpfs": cmdTmpfs, "overlay": cmdOverlay, "damage": cmdDamage, "links": cmdLinks, "times": cmdTimes, "within": cmdWithin,
		"debian": cmdDebian, "terminal": cmdTerminal,
		// blocks_test.go
		"loop": cmdLoop, "shares": cmdShares,
		// files_test.go
		"serve": cmdServe,
		// emulators_test.go
		"registered": cmdRegistered,
		// cgroup_test.go
		"memory": cmdMemory,
		// storm_test.go
		"storm": cmdStorm,
		// crash_test.go
		"crashpoints": cmdCrashpoints, "crashfile": cmdCrashfile, "durable": cmdDurable, "fullpoints": cmdFullpoints,
		// screen_test.go
		"screen": cmdScreen,
		// beside_test.go
		"beside": cmdBeside,
		// farm_test.go
		"buildkitd": cmdBuildkitd, "stub": cmdStub,
		// page_test.go
		"page": cmdPage,
	}
}

func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}
