package main

import (
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
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

// Bars are fed from many goroutines, and close returns though one of them never fills.
func TestProgressBars(t *testing.T) {
	e, _, _ := testEnv(t)
	e.StderrTTY = true
	p := newProgress(e, false, pushWords)
	var all sync.WaitGroup
	for _, hex := range []string{"aa", "bb", "cc", "dd"} {
		all.Go(func() {
			for n := range int64(99) {
				p.update(blob(hex, types.OCILayer), n)
			}
			if hex != "dd" {
				p.update(blob(hex, types.OCILayer), 100)
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
}
