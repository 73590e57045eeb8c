package layout_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
)

const victimEnv = "WHERRY_LAYOUT_VICTIM"

// TestMain makes a victim of this program when it is asked to: it works on a
// store, acknowledging on stdout what is done, until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" { //nolint:forbidigo // this is a program now
		victim(dir, os.Args[1])
	}
	os.Exit(m.Run())
}

// victim puts, tags, loads and removes without end. Every name it prints "+"
// for stays until it prints "-".
func victim(dir, id string) {
	t := &loose{}
	say := func(s, name string) {
		_, err := fmt.Fprintln(os.Stdout, s, name) //nolint:forbidigo // its own stream
		t.must(err)
	}
	s := open(t, dir)
	ctx := context.Background()
	for n := 0; ; n++ {
		img := image(t, "linux/amd64", 2, 200_000)
		name := fmt.Sprintf("docker.io/%s/put:%d", id, n)
		put(t, s, from(t, img), name)
		say("+", name)
		tag := fmt.Sprintf("docker.io/%s/tag:%d", id, n)
		t.must(s.Tag(find(t, s, name), tag))
		say("+", tag)
		loaded := fmt.Sprintf("docker.io/%s/load:%d", id, n)
		load(t, s, dockerArchive(t, map[string]v1.Image{"docker.io/" + id + "/load:" + fmt.Sprint(n): img}))
		say("+", loaded)
		say("-", name)
		_, err := s.Remove(ctx, name, layout.RemoveOptions{})
		t.must(err)
	}
}

// loose stands for a *testing.T where there is no test.
type loose struct{ testing.TB }

func (l *loose) Helper()                  {}
func (l *loose) Context() context.Context { return context.Background() }
func (l *loose) Fatal(args ...any)        { l.must(fmt.Errorf("%s", fmt.Sprint(args...))) }
func (l *loose) must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err) //nolint:forbidigo // its own stream
		os.Exit(3)
	}
}

// start runs a victim and returns how to kill it and hear what it had done.
func start(t *testing.T, dir, id string) (kill func() (promised []string)) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], id)
	cmd.Env = append(os.Environ(), victimEnv+"="+dir)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan []string)
	go func() {
		var lines []string
		for sc := bufio.NewScanner(out); sc.Scan(); {
			lines = append(lines, sc.Text())
		}
		said <- lines
	}()
	return func() []string {
		_ = cmd.Process.Kill()
		lines := <-said
		_ = cmd.Wait()
		if complaints.Len() > 0 {
			t.Errorf("victim %s: %s", id, &complaints)
		}
		var promised []string
		for _, l := range lines {
			name := l[2:]
			if l[0] == '+' {
				promised = append(promised, name)
			} else {
				promised = slices.DeleteFunc(promised, func(p string) bool { return p == name })
			}
		}
		return promised
	}
}

func TestKilledWritersLoseNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	promised := []string{}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		var kills []func() []string
		for n := range 3 {
			kills = append(kills, start(t, dir, fmt.Sprintf("r%dn%d", round, n)))
		}
		time.Sleep(time.Duration(100+37*round) * time.Millisecond)
		for _, kill := range kills {
			promised = append(promised, kill()...)
		}
		have := names(t, s)
		for _, p := range promised {
			if !slices.Contains(have, p) {
				t.Errorf("round %d: %s is lost", round, p)
			}
		}
		check(t, s)
	}
	if len(promised) == 0 {
		t.Error("nobody did anything")
	}
	if c, err := s.Collect(t.Context()); err != nil || c.Busy {
		t.Errorf("collecting: %+v, %v", c, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, ".ingest")); err == nil && len(left) > 0 {
		t.Errorf("unfinished blobs are left: %v", left)
	}
	check(t, s)
}

func TestManyAtOnceLoseNothing(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	var mu sync.Mutex
	var want []string
	shared := image(t, "linux/amd64", 2, 300_000)
	archive := dockerArchive(t, map[string]v1.Image{"shared:1": shared})
	for n := range 8 {
		all.Go(func() {
			s := open(t, dir) // as other processes would
			put(t, s, from(t, shared), fmt.Sprintf("docker.io/library/same:%d", n))
			put(t, s, from(t, image(t, "linux/amd64", 1, 1000)), fmt.Sprintf("docker.io/library/own:%d", n))
			load(t, s, archive)
			if err := s.Tag(find(t, s, "shared:1"), fmt.Sprintf("tag:%d", n)); err != nil {
				t.Error(err)
			}
			put(t, s, from(t, image(t, "linux/amd64", 1, 1000)), fmt.Sprintf("gone:%d", n))
			if _, err := s.Remove(t.Context(), fmt.Sprintf("gone:%d", n), layout.RemoveOptions{}); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, repo := range []string{"same", "own", "tag"} {
				want = append(want, fmt.Sprintf("docker.io/library/%s:%d", repo, n))
			}
		})
	}
	all.Wait()
	s := open(t, dir)
	want = append(want, "docker.io/library/shared:1")
	got := names(t, s)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	check(t, s)
}

func TestOneTransferServesAllWhoWaitAndNobodyWaitsInSilence(t *testing.T) {
	dir := t.TempDir()
	img := image(t, "linux/amd64", 1, 2<<20)
	src := from(t, img)
	gate := make(chan struct{})
	src.open = func(_ v1.Descriptor, offset int64, content []byte) (io.ReadCloser, error) {
		if len(content) > 1<<20 {
			<-gate
		}
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	}
	said := make(chan string, 1)
	var all sync.WaitGroup
	all.Go(func() { put(t, open(t, dir), src, "one") })
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for h := digest(t, layers[0]); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, ".ingest", "sha256-"+h.Hex+".lock")); err == nil {
			break
		}
	}
	second := from(t, img)
	all.Go(func() {
		put(t, open(t, dir, layout.WithNotice(func(msg string) { said <- msg })), second, "two")
	})
	if msg := <-said; !strings.Contains(msg, "waiting for another process that fetches blob sha256:") {
		t.Errorf("was told %q", msg)
	}
	close(gate)
	all.Wait()
	if n := second.opened[digest(t, layers[0])]; n != 0 {
		t.Errorf("the second transferred the layer %d times", n)
	}
	check(t, open(t, dir))

	other := flock.New(filepath.Join(dir, ".index.lock"))
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
	defer other.Unlock() //nolint:errcheck // closing it drops the lock
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-said; cancel() }()
	s := open(t, dir, layout.WithNotice(func(msg string) { said <- msg }))
	if _, err := s.Put(ctx, src, layout.PutOptions{Names: []string{"three"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled wait: %v", err)
	}
}
