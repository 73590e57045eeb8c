//go:build linux

package main

import (
	"context"
	"slices"
	"strings"

	"github.com/wherry-oci/wherry/build/bake"
)

// bakeDefinition is what the line being typed is about; nil if there is none here, or it
// would have to be waited for.
func (c *completer) bakeDefinition() *bake.Definition {
	o := bakeOptions{Files: c.valuesOf("file"), Vars: c.valuesOf("var"), Caller: cwdPrefix}
	if url, _, _ := remoteDefinition(c.parser.operands); url != "" || slices.Contains(o.Files, "-") {
		return nil
	}
	b := &baker{env: c.env}
	d, err := b.readDefinition(context.Background(), o, nil)
	if err != nil {
		return nil
	}
	return d
}

// valuesOf are the values that a flag was given before.
func (c *completer) valuesOf(flag string) []string {
	var values []string
	for _, arg := range c.parser.commandArgs {
		if value, ok := strings.CutPrefix(arg, "--"+flag+"="); ok {
			values = append(values, value)
		}
	}
	return values
}

// bakeTargets are the targets and groups that people call by their names.
func (c *completer) bakeTargets() []candidate {
	d := c.bakeDefinition()
	if d == nil {
		return nil
	}
	var list []candidate
	for _, r := range bakeRows(d) {
		list = append(list, candidate{r.Name, r.Description})
	}
	return list
}

// bakeVariables are what --var sets.
func (c *completer) bakeVariables() []candidate {
	d := c.bakeDefinition()
	if d == nil {
		return nil
	}
	var list []candidate
	for _, v := range d.Variables() {
		list = append(list, candidate{v.Name + "=", v.Description})
	}
	return list
}
