//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/wherry-oci/wherry/build"
)

// hintTarget gives an error a hint that names the stages there are, where the request's target is none of them. BuildKit's
// error of that has no type, so the Dockerfile is asked.
func (b *builder) hintTarget(ctx context.Context, err error) error {
	failed, ok := errors.AsType[*build.Error](err)
	piped := b.request.Context == "-" || b.request.Dockerfile == "-" // that is read by now
	if !ok || failed.Excerpt != "" || len(failed.Output) > 0 || b.request.Target == "" || piped || ctx.Err() != nil {
		return err
	}
	r := b.request
	r.Target, r.Progress.Mode, r.Report = "", "none", nil
	answer, errAsk := build.Ask(ctx, b.store, b.state, r, build.AskTargets)
	if errAsk != nil {
		return err
	}
	var list struct{ Targets []struct{ Name string } }
	if json.Unmarshal([]byte(answer.JSON), &list) != nil {
		return err
	}
	var names []string
	for _, t := range list.Targets {
		if t.Name != "" {
			names = append(names, t.Name)
		}
	}
	switch {
	case slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, b.request.Target) }):
		return err
	case len(names) == 0:
		return withHint(err, "%s build ... without --target: no stage has a name", program)
	}
	return withHint(err, "%s build --target NAME ..., where NAME is %s", program, strings.Join(names, " or "))
}
