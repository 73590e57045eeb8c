//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/wherry-oci/wherry/build/bake"
)

// listBake prints what a definition has, and builds nothing.
func (e *env) listBake(definition *bake.Definition, what string) error {
	kind, format, err := bakeListing(what)
	if err != nil {
		return err
	}
	if kind == "variables" {
		return e.listVariables(definition.Variables(), format)
	}
	return e.listTargets(definition, format)
}

func (e *env) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintln(&e.Out, string(text))
	return nil
}

// bakeListing reads --list: "targets", "variables" or "type=targets,format=json".
func bakeListing(s string) (kind, format string, err error) {
	kind, format = s, "table"
	if strings.Contains(s, "=") {
		kind = ""
		for field := range strings.SplitSeq(s, ",") {
			k, v, _ := strings.Cut(field, "=")
			switch k {
			case "type":
				kind = v
			case "format":
				format = v
			default:
				return "", "", bakeUsage("invalid --list %q: unknown key %q (there is type, format)", s, k)
			}
		}
	}
	if kind != "targets" && kind != "variables" || format != "table" && format != "json" {
		return "", "", bakeUsage("invalid --list %q: want targets or variables, as type=targets,format=json", s)
	}
	return kind, format, nil
}

func (e *env) listVariables(variables []*bake.Variable, format string) error {
	if format == "json" {
		return e.printJSON(variables)
	}
	w := tabwriter.NewWriter(&e.Out, 1, 8, 1, '\t', 0)
	fmt.Fprintln(w, "VARIABLE\tTYPE\tVALUE\tDESCRIPTION")
	for _, v := range variables {
		value := "<null>"
		if v.Value != nil {
			value = *v.Value
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Name, v.Type, value, v.Description)
	}
	return w.Flush()
}

// bakeRow is a target or a group in the list of them.
type bakeRow struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Group       bool   `json:"group,omitempty"`
}

// listTargets leaves out names that begin with "_", which are private by convention.
func (e *env) listTargets(d *bake.Definition, format string) error {
	var rows []bakeRow
	for _, t := range d.Targets {
		rows = append(rows, bakeRow{Name: t.Name, Description: t.Description})
	}
	for _, g := range d.Groups {
		about := strings.Join(slices.Sorted(slices.Values(g.Targets)), ", ")
		if g.Description != "" {
			about = strings.TrimSuffix(g.Description+" ("+about+")", " ()")
		}
		rows = append(rows, bakeRow{Name: g.Name, Description: about, Group: true})
	}
	rows = slices.DeleteFunc(rows, func(r bakeRow) bool { return strings.HasPrefix(r.Name, "_") })
	slices.SortFunc(rows, func(a, b bakeRow) int { return cmp.Compare(a.Name, b.Name) })
	if format == "json" {
		return e.printJSON(rows)
	}
	w := tabwriter.NewWriter(&e.Out, 1, 8, 1, '\t', 0)
	fmt.Fprintln(w, "TARGET\tDESCRIPTION")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\n", r.Name, r.Description)
	}
	return w.Flush()
}

// allowBake has what targets ask for beyond the working folder allowed: by --allow, or by
// the person at the terminal.
func (e *env) allowBake(ctx context.Context, plan *bake.Plan, o bakeOptions) error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	files := true
	if on, err := strconv.ParseBool(e.Getenv("BUILDX_BAKE_ENTITLEMENTS_FS")); err == nil {
		files = on
	}
	missing, err := plan.Missing(o.Allow, cwd, files)
	if err != nil || len(missing) == 0 {
		return err
	}
	flags := "--allow " + strings.Join(missing, " --allow ")
	if e.StdinTTY && e.StderrTTY && o.Progress != "rawjson" {
		e.say("The definition asks for more than to read and write below this folder: %s", printable(strings.Join(missing, ", ")))
		fmt.Fprint(e.Stderr, "Do you want to grant requested privileges and continue? [y/N] ")
		if answer, err := readLine(e.stdin(ctx)); err == nil && strings.EqualFold(answer, "y") {
			return nil
		}
	}
	return withHint(fmt.Errorf("additional privileges requested: %s", strings.Join(missing, ", ")), "%s bake %s ...", program, flags)
}

func isTrue(s string) bool {
	on, err := strconv.ParseBool(s)
	return err == nil && on
}
