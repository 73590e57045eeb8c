package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/rogpeppe/go-internal/testscript"
)

// seedVariable, when set, has storms choose as they did under this seed. When who is killed, and who comes first, is
// up to the machine all the same.
const (
	seedVariable = "WHERRY_STORM_SEED"
	stormProcs   = 16
	archivesEach = 2
)

// faultStories are those whose names begin so. They take the whole machine, and time.
const faultStories = "fault_"

// scripts are the stories in testdata: those about faults, or all others.
func scripts(t *testing.T, faults bool) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(file string) bool {
		return strings.HasPrefix(filepath.Base(file), faultStories) != faults
	})
}

// TestFaults runs the stories about faults, when the others have ended.
func TestFaults(t *testing.T) { runScripts(t, scripts(t, true)) }

// storm is a time of many processes on one store.
type storm struct {
	ts       *testscript.TestScript
	registry *endpoint
	end      time.Time
	builds   bool
	ids      map[string]string // of the archives' images, by file

	mu       sync.Mutex
	failures []string
	done     map[string]int // by command
	killed   int
	shared   map[string]v1.Hash         // names that were pulled and that nobody removes
	platform map[string]map[string]bool // platforms pulled of them
}

// cmdStorm: storm DURATION REGISTRY has sixteen workers run commands, each a few at a time, on names of their own and on
// shared ones that are never removed. Some commands are killed: then either may have happened. All others must succeed,
// and what they reported must hold in the end.
func cmdStorm(ts *testscript.TestScript, _ bool, args []string) {
	length, err := time.ParseDuration(args[0])
	ts.Check(err)
	seed := time.Now().UnixNano()
	if text := os.Getenv(seedVariable); text != "" {
		seed, err = strconv.ParseInt(text, 10, 64)
		ts.Check(err)
	}
	fmt.Fprintf(os.Stderr, "storm: %s=%d\n", seedVariable, seed)
	st := &storm{
		ts: ts, registry: storyOf(ts).registries[args[1]], builds: storyOf(ts).suite.noBuild() == "",
		done: map[string]int{}, shared: map[string]v1.Hash{}, platform: map[string]map[string]bool{},
	}
	st.archives()
	st.end = time.Now().Add(length)
	workers := make([]*worker, stormProcs)
	var group sync.WaitGroup
	for n := range workers {
		w := &worker{storm: st, id: n, random: rand.New(rand.NewSource(seed + int64(n))), names: map[string]promise{}}
		workers[n] = w
		group.Go(w.run)
	}
	group.Wait()
	fmt.Fprintf(os.Stderr, "storm: %v done, %d killed\n", st.done, st.killed)
	for _, w := range workers {
		st.verify(w)
	}
	st.verifyShared()
	if len(st.failures) > 0 {
		ts.Fatalf("%s=%d: %d failures:\n%s", seedVariable, seed, len(st.failures), strings.Join(st.failures, "\n"))
	}
}

// archives writes two for every worker: one of an image that others have too, one of its own. It learns from a store
// that nobody disturbs which image is in each.
func (st *storm) archives() {
	st.ids = map[string]string{}
	for n := range stormProcs {
		for k := range archivesEach {
			name, seed := fmt.Sprintf("w%d/load:%d", n, k), "seed=50"
			if k > 0 {
				seed = fmt.Sprintf("seed=%d", 100+n)
			}
			kind := []string{"oci", "docker"}[(n+k)%2]
			cmdArchive(st.ts, false, []string{archiveFile(n, k), kind, name, "random", seed, "layers=2", "size=150000"})
			cmd := prepare(context.Background(), st.ts, []string{"wherry", "--store", "calm", "load", "-q", "-i", archiveFile(n, k)})
			out, err := cmd.CombinedOutput()
			if err != nil {
				st.ts.Fatalf("%v: %s", err, out)
			}
		}
	}
	for name, digest := range namesOf(st.ts, st.ts.MkAbs("calm")) {
		st.ids[name] = digest
	}
}

func archiveFile(n, k int) string { return fmt.Sprintf("w%d-%d.tar", n, k) }

// namesOf are the digests of a store by full name.
func namesOf(ts *testscript.TestScript, dir string) map[string]string {
	names := map[string]string{}
	for _, d := range openIndex(ts, []string{dir}).Manifests {
		if name := d.Annotations[containerdName]; name != "" {
			names[name] = d.Digest.String()
		}
	}
	return names
}

func (st *storm) fail(format string, args ...any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.failures = append(st.failures, fmt.Sprintf(format, args...))
}

// verify compares a worker's names with the store.
func (st *storm) verify(w *worker) {
	have := namesOf(st.ts, st.ts.Getenv("STORE"))
	for name, want := range w.names {
		id, there := have[name]
		switch {
		case want == present && !there:
			st.fail("%s was reported as done, and is not there", name)
		case want == present && id != w.ids[name]:
			st.fail("%s is %s, not %s", name, id, w.ids[name])
		case want == absent && there:
			st.fail("%s was reported as removed, and is there", name)
		}
	}
}

// verifyShared wants every name that was pulled, and every platform of it.
func (st *storm) verifyShared() {
	dir := st.ts.Getenv("STORE")
	have := namesOf(st.ts, dir)
	path, err := layout.FromPath(dir)
	st.ts.Check(err)
	for name, digest := range st.shared {
		if have[name] != digest.String() {
			st.fail("%s was pulled as %s, and is %q", name, digest, have[name])
			continue
		}
		d, _ := entry(st.ts, dir, name)
		for text := range st.platform[name] {
			p, err := v1.ParsePlatform(text)
			st.ts.Check(err)
			if err := wholePlatform(path, d, *p); err != nil {
				st.fail("%s for %s was pulled: %v", name, text, err)
			}
		}
	}
}

func wholePlatform(path layout.Path, d v1.Descriptor, p v1.Platform) error {
	img, err := pick(path, d, p)
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	if !complete(string(path), digest) {
		return errors.New("it is not whole")
	}
	return nil
}
