package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rung is a way to run wherry with fewer privileges: what comes before the program, and what after its build.
type rung struct {
	name     string
	most     float64 // what it may cost on the reference build, as a multiple of rung a; 0: nothing is said
	as       []string
	owner    int // whose files it makes
	flags    []string
	emptyRun time.Duration // what an empty RUN may cost; 0: nothing is said
}

// The users of rungs b and c, whom nobody else knows.
const (
	rangedID, rangedName = 64242, "wherry-bench"
	plainID              = 64243
)

// rungs are those that can be had by root on a machine. It makes a user for b in an /etc that only those see who are run
// as him.
func (b *bench) rungs(ctx context.Context) ([]rung, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("it needs root, to be others")
	}
	list := []rung{{name: "rung a", emptyRun: 40 * time.Millisecond}}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		fmt.Fprintln(os.Stderr, "without rung b:", err)
	} else {
		etc, err := b.privateEtc(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, rung{
			name: "rung b", most: 1.1, emptyRun: 40 * time.Millisecond, owner: rangedID,
			as: append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", "mount --bind " + etc + " /etc && exec \"$@\"", "sh"}, asUser(rangedID)...),
		})
	}
	return append(list,
		rung{name: "rung c", owner: plainID, as: asUser(plainID)},
		rung{name: "rung e", most: 2, flags: []string{"--isolation", "chroot"}},
	), nil
}

func asUser(id int) []string {
	return []string{"setpriv", "--reuid", strconv.Itoa(id), "--regid", strconv.Itoa(id), "--clear-groups"}
}

// privateEtc is the machine's /etc with a user who has a range of ids.
func (b *bench) privateEtc(ctx context.Context) (string, error) {
	etc := filepath.Join(b.dir, "etc")
	if out, err := exec.CommandContext(ctx, "cp", "-a", "/etc", etc).CombinedOutput(); err != nil {
		return "", fmt.Errorf("copy /etc: %w\n%s", err, out)
	}
	for file, line := range map[string]string{
		"passwd": fmt.Sprintf("%s:x:%d:%d::/:/bin/sh", rangedName, rangedID, rangedID), "group": fmt.Sprintf("%s:x:%d:", rangedName, rangedID),
		"subuid": rangedName + ":1900200000:65536", "subgid": rangedName + ":1900200000:65536",
	} {
		old, err := os.ReadFile(filepath.Join(etc, file))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(etc, file), append(old, line+"\n"...), 0o644); err != nil {
			return "", err
		}
	}
	return etc, nil
}

// rungBuilder builds on a rung.
type rungBuilder struct {
	wherryBuilder
	rung rung
}

func (r *rungBuilder) start(ctx context.Context, dir string) error {
	return errors.Join(r.wherryBuilder.start(ctx, dir), os.Chown(dir, r.rung.owner, r.rung.owner))
}

func (r *rungBuilder) archive(project, from, file string) contender {
	c := r.wherryBuilder.archive(project, from, file)
	name := r.rung.name
	if r.rung.most > 0 {
		name += fmt.Sprintf(" (at most %.2f)", r.rung.most)
	}
	return contender{name: name, args: append(append(append([]string{}, r.rung.as...), c.args...), r.rung.flags...)}
}

// rungCosts is what fewer privileges cost: for a step that does nothing, beside runc, and on the reference build.
func (b *bench) rungCosts(ctx context.Context) error {
	list, err := b.rungs(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "without rungs:", err)
		return nil
	}
	tmp := filepath.Join(b.dir, "tmp")
	if err := errors.Join(os.Chmod(b.dir, 0o755), os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
		return err
	}
	for i := range list {
		list[i].as = append([]string{"env", "TMPDIR=" + tmp}, list[i].as...)
	}
	if err := b.emptySteps(ctx, list); err != nil {
		return err
	}
	return b.rungBuilds(ctx, list)
}

func (b *bench) rungBuilds(ctx context.Context, list []rung) error {
	from, err := b.referenceBase(ctx)
	if err != nil {
		return err
	}
	r := referenceBuild{bench: b, project: filepath.Join(b.dir, "reference-rungs"), from: from}
	if err := writeReference(r.project); err != nil {
		return err
	}
	r.races = []*race{newRace("reference build, cold", len(list))}
	for n := range b.runs {
		for i, x := range list {
			builder := &rungBuilder{wherryBuilder{program: b.wherry}, x}
			if err := r.run(ctx, i, builder, filepath.Join(b.dir, fmt.Sprintf("run-rungs-%d-%d", n, i))); err != nil {
				return err
			}
		}
	}
	fmt.Println("RATIO is now that of the time in the line to rung a's.")
	first := median(r.races[0].times[0])
	r.races[0].table(func(i int) float64 { return float64(median(r.races[0].times[i])) / float64(first) })
	return nil
}

// emptyStepCount is how many steps that do nothing a build has: one alone would be lost in the rest of it.
const emptyStepCount = 20

// emptySteps tells what one of the steps costs that do nothing: builds with and without them, in turns.
func (b *bench) emptySteps(ctx context.Context, list []rung) error {
	if _, err := exec.LookPath("runc"); err == nil {
		list = append(list, rung{name: "runc", flags: []string{"--runtime", "runc"}})
	}
	for name, steps := range map[string]int{"empty": emptyStepCount, "none": 0} {
		dir := filepath.Join(b.dir, name)
		text := "ARG BASE\nFROM ${BASE}\n" + strings.Repeat("RUN :\n", steps)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)); err != nil {
			return err
		}
	}
	cost := make([][]time.Duration, len(list))
	for n := range 2*b.runs + 1 {
		for i, x := range list {
			took, err := b.emptyStep(ctx, x, filepath.Join(b.dir, fmt.Sprintf("store-empty-%d", i)))
			if err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			if n > 0 { // the first one fetches the base image
				cost[i] = append(cost[i], took)
			}
		}
	}
	fmt.Println("RATIO is now that of the time in the line to the last one's.")
	last := median(cost[len(list)-1])
	for i, x := range list {
		name := x.name
		if x.emptyRun > 0 {
			name += fmt.Sprintf(" (at most %s, 1.00)", show(x.emptyRun))
		}
		fmt.Printf("%-34s %-32s %10s %10s %8.2f\n", "an empty RUN", name, show(median(cost[i])), show(slices.Min(cost[i])), float64(median(cost[i]))/float64(last))
	}
	return nil
}

// emptyStep is what each of the steps has cost this time.
func (b *bench) emptyStep(ctx context.Context, x rung, store string) (time.Duration, error) {
	if err := errors.Join(os.MkdirAll(store, 0o755), os.Chown(store, x.owner, x.owner)); err != nil {
		return 0, err
	}
	var times [2]time.Duration
	for i, name := range []string{"none", "empty"} {
		args := append([]string{}, x.as...)
		args = append(args, b.wherry, "--store", filepath.Join(store, "s"), "build", "-q", "--no-cache", "-o", "type=cacheonly",
			"--build-arg", "BASE="+b.registry.Addr()+"/toolbox")
		took, err := b.time(ctx, contender{name: x.name, args: append(append(args, x.flags...), filepath.Join(b.dir, name))})
		if err != nil {
			return 0, err
		}
		times[i] = took
	}
	return (times[1] - times[0]) / emptyStepCount, nil
}
