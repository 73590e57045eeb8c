//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/bake"
	"github.com/wherry-oci/wherry/platform"
)

// requests are the targets as requests, by their names. They share the ways to registries.
func (b *baker) requests(ctx context.Context, o bakeOptions) (map[string]build.Request, *heldNotes, error) {
	var hosts build.Request
	notes, err := b.addHosts(ctx, &hosts)
	if err != nil {
		return nil, nil, err
	}
	requests := map[string]build.Request{}
	for name, t := range b.plan.Targets {
		req, err := b.request(t, o)
		if err != nil {
			return nil, nil, &build.TargetError{Target: name, Err: err}
		}
		req.Hosts, req.Keychain = hosts.Hosts, hosts.Keychain
		requests[name] = req
	}
	return requests, notes, nil
}

// request is a target as a build: what it says is read as the flags of build are.
func (b *baker) request(t *bake.Target, o bakeOptions) (build.Request, error) {
	if t.ContextPath() == "-" || t.DockerfilePath() == "-" {
		return build.Request{}, errors.New("neither the context nor the Dockerfile can come from standard input")
	}
	flags := buildOptions{
		Context: t.ContextPath(), File: t.DockerfilePath(), BuildContexts: assignments(t.Contexts), Tags: t.Tags,
		BuildArgs: assignments(given(t.Args)), Labels: assignments(given(t.Labels)), Annotations: t.Annotations,
		Target: textOf(t.Target), Platforms: t.Platforms, NoCache: t.NoCache != nil && *t.NoCache, NoCacheFilter: t.NoCacheFilter,
		Pull: t.Pull != nil && *t.Pull, Outputs: t.Outputs.Strings(), CacheFrom: t.CacheFrom.Strings(), CacheTo: t.CacheTo.Strings(),
		Secrets: t.Secrets.Strings(), AddHosts: assignments(given(t.ExtraHosts)), Network: textOf(t.NetworkMode),
		ShmSize: textOf(t.ShmSize), Ulimits: t.Ulimits, Resources: assignments(t.Resources), Allow: t.Entitlements,
		Attests: t.Attest.Strings(), Call: callBuild, Progress: o.Progress, Builder: o.Builder, EmulatorDir: o.EmulatorDir, Policies: o.Policies,
	}
	if *t.Dockerfile == "Dockerfile" && t.DockerfileInline == nil {
		flags.File = "" // may be in small letters, too
	}
	for _, e := range t.SSH {
		flags.SSH = append(flags.SSH, strings.TrimSuffix(e["id"]+"="+e["paths"], "="))
	}
	for i, c := range flags.BuildContexts {
		flags.BuildContexts[i] = strings.Replace(c, "="+cwdPrefix, "=", 1)
	}
	if t.DockerfileInline != nil {
		flags.File = "-"
	}
	if bake.IsRemote(flags.Context) {
		b.addGitAccess(&flags)
	}
	req, err := buildRequest(b.env, flags)
	if usage, ok := errors.AsType[*usageError](err); ok {
		err = bakeUsage("%w", usage.err)
	}
	if t.DockerfileInline != nil {
		req.Stdin = strings.NewReader(*t.DockerfileInline)
	}
	return req, err
}

func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// given are the values that are not null.
func given(values map[string]*string) map[string]string {
	out := map[string]string{}
	for k, v := range values {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}

// assignments are values as flags have them, sorted by their keys.
func assignments(values map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(values)) {
		out = append(out, k+"="+values[k])
	}
	return out
}

// callOf is what a target is asked; callBuild if it is built.
func callOf(t *bake.Target) string {
	return firstOf(textOf(t.Call), callBuild)
}

// bakeBuiltins are the variables that every definition has.
func bakeBuiltins(caller string) map[string]string {
	return map[string]string{"BAKE_CMD_CONTEXT": caller, "BAKE_LOCAL_PLATFORM": platform.Format(platform.Default())}
}

// askTargets prints what the frontend says to each target's question.
func (b *baker) askTargets(ctx context.Context, o bakeOptions, requests map[string]build.Request) error {
	_, format, _ := strings.Cut(o.Call, ",")
	if format != "" && format != "format=json" && format != "format=text" {
		return bakeUsage("invalid --call %q: want METHOD[,format=json]", o.Call)
	}
	answers := map[string]*build.Answer{}
	for name, req := range requests {
		for alias, from := range req.Contexts {
			if strings.HasPrefix(from, "target:") { // an answer is about one Dockerfile
				req.Contexts[alias] = "docker-image://scratch"
			}
		}
		answer, err := (&builder{env: b.env, store: b.store, state: b.state, request: req, farm: b.chosen}).answer(ctx, questionOf(b.plan.Targets[name]))
		if err != nil {
			(&builder{env: b.env}).sayBuildFailure(err)
			return &build.TargetError{Target: name, Err: err}
		}
		answers[name] = answer
	}
	failed := false
	for i, name := range slices.Sorted(maps.Keys(answers)) {
		failed = failed || answers[name].Failed
		if format != "format=json" {
			if i > 0 {
				fmt.Fprintln(&b.Out)
			}
			b.printAnswer(name, answers[name])
		}
	}
	if format == "format=json" {
		if err := b.printAnswers(answers); err != nil {
			return err
		}
	}
	if !failed {
		return nil
	}
	if err := b.flush(); err != nil { // what was found is the answer, though the exit code is 1
		return err
	}
	return exitWith(exitFailed)
}

func questionOf(t *bake.Target) string {
	question, _, _ := strings.Cut(callOf(t), ",")
	if question == "lint" { // docker's older word
		return build.AskCheck
	}
	return question
}

func (b *baker) printAnswer(name string, answer *build.Answer) {
	fmt.Fprintln(&b.Out, name)
	if about := b.plan.Targets[name].Description; about != "" {
		fmt.Fprintln(&b.Out, about)
	}
	text := strings.Trim(answer.Text, "\n")
	if questionOf(b.plan.Targets[name]) == build.AskCheck && !answer.Failed {
		text = "Check complete, no warnings found."
	}
	fmt.Fprintf(&b.Out, "\n%s\n", text)
}

// printAnswers prints what bake --print does, with the answers in it.
func (b *baker) printAnswers(answers map[string]*build.Answer) error {
	targets := map[string]map[string]any{}
	for name, t := range b.plan.Targets {
		targets[name] = map[string]any{"build": t}
		if a := answers[name]; a != nil {
			targets[name][questionOf(t)] = json.RawMessage(a.JSON)
		}
	}
	text, err := json.MarshalIndent(map[string]any{"group": b.plan.Groups, "target": targets}, "", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintln(&b.Out, string(text))
	return nil
}
