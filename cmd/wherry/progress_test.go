package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/vbauerster/mpb/v8/decor"
)

func blob(hex string, t types.MediaType) v1.Descriptor {
	return v1.Descriptor{MediaType: t, Size: 100, Digest: v1.Hash{Algorithm: "sha256", Hex: hex + "00000000000000"}}
}

// Without a terminal each layer has one line, when it is finished; what is no layer has none.
func TestProgressLines(t *testing.T) {
	there, small, large, broken := blob("aa", types.OCILayer), blob("bb", types.DockerLayer), blob("cc", types.OCILayer), blob("dd", types.OCILayer)
	config := blob("ee", types.OCIConfigJSON)
	updates := func(p *progress) {
		p.update(config, 0)
		p.update(config, 100)
		p.update(there, 100)
		p.update(small, 0)
		p.update(small, 100)
		p.update(large, 30) // resumed
		p.update(large, 60)
		p.update(large, 100)
		p.update(large, 100)
		p.update(broken, 50)
		p.close()
	}
	e, _, stderr := testEnv(t)
	p := newProgress(e, false, pullWords, "1: Pulling from app")
	if stderr.Len() > 0 || p.moved() {
		t.Errorf("before anything came: %q, moved %v", stderr, p.moved())
	}
	updates(p)
	want := "1: Pulling from app\naa0000000000: Already exists\nbb0000000000: Pull complete\ncc0000000000: Pull complete\n"
	if stderr.String() != want || !p.moved() {
		t.Errorf("got %q, moved %v; want %q", stderr, p.moved(), want)
	}

	e, _, stderr = testEnv(t)
	updates(newProgress(e, true, pullWords, "1: Pulling from app"))
	if stderr.Len() > 0 {
		t.Errorf("quiet: %q", stderr)
	}
}

func TestSpeedometer(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	m := &speedometer{}
	if got := m.speed(start); got != 0 {
		t.Errorf("before anything came: %v", got)
	}
	m.add(at(0), 5000) // resumed: these came another day
	if got := m.speed(at(50)); got != 0 {
		t.Errorf("after an instant: %v", got)
	}
	for ms := 1; ms <= 10_000; ms++ {
		m.add(at(ms), 5000+int64(ms))
	}
	if got := m.speed(at(10_000)); got < 990 || got > 1010 {
		t.Errorf("1000 bytes a second are shown as %v", got)
	}
	if got := m.speed(at(60_000)); got > 100 {
		t.Errorf("50 s without a byte are shown as %v", got)
	}
	m.add(at(60_000), 0)
	m.add(at(61_000), 3000)
	if got := m.speed(at(61_000)); got != 3000 {
		t.Errorf("begun anew, 3000 bytes a second are shown as %v", got)
	}
}

// What stands beside a bar gives way to a narrow terminal.
func TestBarText(t *testing.T) {
	for width, want := range map[int]string{
		100: " 12.3MB/45.6MB    1.02kB/s",
		34:  " 12.3MB/45.6MB    1.02kB/s",
		33:  " 12.3MB/45.6MB  ",
		15:  "  27%",
		4:   "",
	} {
		if got := barText(decor.Statistics{AvailableWidth: width, Current: 12_345_678, Total: 45_600_000}, 1020); got != want {
			t.Errorf("in %d columns %q, want %q", width, got, want)
		}
	}
}

// Bars are fed from many goroutines, and close returns though one of them never fills.
func TestProgressBars(t *testing.T) {
	e, _, stderr := testEnv(t)
	e.StderrTTY = true
	p := newProgress(e, false, pushWords)
	const layers = 60
	hex := func(i int) string { return fmt.Sprintf("%02d", i) }
	var all sync.WaitGroup
	for i := range layers {
		all.Go(func() {
			for n := range int64(99) {
				p.update(blob(hex(i), types.OCILayer), n)
			}
			if i > 0 {
				p.update(blob(hex(i), types.OCILayer), 100)
			}
		})
	}
	e.say("above the bars")
	all.Wait()
	p.close()
	if !p.moved() {
		t.Error("nothing has moved")
	}
	e.say("after them")
	p.update(blob("zz", types.OCILayer), 1) // what comes late does no harm
	seen := strings.ReplaceAll(stderr.String(), "\x1b[K", "")
	want := []string{"above the bars\n", "after them\n", "000000000000: Stopped at 98B/100B\n"}
	for i := 1; i < layers; i++ {
		want = append(want, hex(i)+"0000000000: Pushed\n")
	}
	for _, line := range want {
		if n := strings.Count(seen, line); n != 1 {
			t.Errorf("%d times %q in:\n%s", n, line, seen)
		}
	}
}
