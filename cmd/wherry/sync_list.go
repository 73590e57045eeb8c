package main

import (
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"go.yaml.in/yaml/v4"

	"github.com/wherry-oci/wherry/registry"
)

// syncList is what a file asks for.
type syncList struct {
	entries []syncEntry
	jobs    int      // 0: not said
	notes   []string // what the file asks for that means nothing here
}

// syncEntry is one image, the tags of a repository, or those of many repositories.
type syncEntry struct {
	line      int
	from      string // an image or a repository; of many the registry, and what they begin with
	repos     func(path string) bool
	tags      func(tag string) bool // nil: the one image that from names
	exactly   []string              // ... or these tags and digests
	to        string                // an image or repository, or what they begin with if it ends in "/"
	lastPart  bool                  // of the source's path only the end is kept
	platforms []string
	all       bool
}

// readSyncList reads wherry's own lists, regsync's and skopeo's: they are told
// apart by their keys. to is where the images go if the file does not say it.
func readSyncList(r io.Reader, to string) (*syncList, error) {
	root, err := readYAML(r)
	if err != nil {
		return nil, err
	}
	y := &yamlReader{}
	switch images, sync := valueOf(root, "images"), valueOf(root, "sync"); {
	case images != nil && images.Kind != yaml.MappingNode:
		return y.ownList(root, to)
	case sync != nil:
		return y.regsyncList(root)
	case isSkopeoList(root):
		return y.skopeoList(root, to)
	}
	return nil, lineErrorf(root, "no list of images: it has neither \"images\", nor \"sync\" as regsync has it, nor registries as skopeo has them")
}

// isSkopeoList: registries have lists of images.
func isSkopeoList(root *yaml.Node) bool {
	return root.Kind == yaml.MappingNode && slices.ContainsFunc(root.Content, func(n *yaml.Node) bool {
		return valueOf(n, "images") != nil || valueOf(n, "images-by-tag-regex") != nil || valueOf(n, "images-by-semver") != nil
	})
}

// valueOf is the value of a key, or nil.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// ownList reads wherry's format.
func (y *yamlReader) ownList(root *yaml.Node, to string) (*syncList, error) {
	list := &syncList{}
	var common syncEntry
	var prefix string
	err := y.mapping(root, "the list", keys{
		"to": y.into(&prefix), "platforms": y.texts(&common.platforms), "all": y.into(&common.all), "jobs": y.into(&list.jobs),
		"images": func(string, *yaml.Node) error { return nil }, // once the rest is known
	})
	if err != nil {
		return nil, err
	}
	common.to = asPrefix(firstOf(to, prefix))
	err = y.sequence(valueOf(root, "images"), "\"images\"", func(n *yaml.Node) error {
		e, err := y.ownEntry(n, common)
		list.entries = append(list.entries, e)
		return err
	})
	return list, err
}

func asPrefix(to string) string {
	if to == "" || strings.HasSuffix(to, "/") {
		return to
	}
	return to + "/"
}

// ownEntry reads one image, which is a name or a mapping.
func (y *yamlReader) ownEntry(n *yaml.Node, e syncEntry) (syncEntry, error) {
	n, err := y.resolve(n)
	if err != nil {
		return e, err
	}
	e.line = n.Line
	var tags []string
	if n.Kind == yaml.ScalarNode {
		e.from = n.Value
	} else if err := y.mapping(n, "an image", keys{
		"from": y.into(&e.from), "to": y.into(&e.to), "tags": y.texts(&tags),
		"platforms": y.texts(&e.platforms), "all": y.into(&e.all),
	}); err != nil {
		return e, err
	}
	if tags != nil {
		if err := tagPatterns(tags).Check(); err != nil {
			return e, &lineError{n.Line, err}
		}
		e.tags = func(tag string) bool { return fitsPatterns(tag, tags) }
	}
	return e, e.check(n)
}

// check finds what is wrong with an entry, and cuts a pattern of repositories off.
func (e *syncEntry) check(n *yaml.Node) error {
	switch {
	case e.from == "":
		return lineErrorf(n, "an image without \"from\"")
	case e.to == "":
		return lineErrorf(n, "%q goes nowhere: say \"to\" in the list, or --to", e.from)
	case strings.ContainsAny(e.from, "*?[") && e.repos == nil:
		host, pattern, ok := strings.Cut(e.from, "/")
		if !ok || strings.ContainsAny(host, "*?[") {
			return lineErrorf(n, "%q: a pattern stands behind the name of a registry, as \"quay.io/team/*\"", e.from)
		}
		fits, err := repositoryPattern(pattern)
		if err != nil {
			return lineErrorf(n, "%q is no pattern: there are *, ** and ?", e.from)
		}
		e.from, e.repos = host, fits
	}
	if e.repos != nil && !strings.HasSuffix(e.to, "/") {
		return lineErrorf(n, "several repositories can't go to %q: it has to end in \"/\"", e.to)
	}
	if e.repos != nil && e.tags == nil {
		return lineErrorf(n, "say which \"tags\" of the repositories, \"*\" for all")
	}
	return nil
}

// repositoryPattern: * does not go beyond a slash, ** does.
func repositoryPattern(pattern string) (func(path string) bool, error) {
	quoted := strings.NewReplacer(`\*\*`, `.*`, `\*`, `[^/]*`, `\?`, `[^/]`).Replace(regexp.QuoteMeta(pattern))
	re, err := regexp.Compile("^" + quoted + "$")
	if err != nil || strings.ContainsAny(pattern, "[]") {
		return nil, fmt.Errorf("%q is no pattern", pattern)
	}
	return re.MatchString, nil
}

// target is where repo goes.
func (e *syncEntry) target(env *env, repo reference.Named) (place, error) {
	to, prefixed := strings.CutSuffix(e.to, "/")
	p, err := env.parsePlace(to)
	if err != nil {
		if !prefixed { // or the registry alone
			return place{}, err
		}
	} else if p.kind != inRegistry {
		if p.kind != inLayout || p.ref != "" {
			return place{}, fmt.Errorf("%q: sync goes to registries, layouts (oci:DIR) and the store (store:)", e.to)
		}
		return p, nil
	}
	if !prefixed {
		return p, nil
	}
	name := reference.Path(repo)
	if e.lastPart {
		name = path.Base(name)
	}
	return env.parsePlace(strings.TrimPrefix(to, "docker://") + "/" + name)
}

// withTags keeps those that an entry asks for, in their order.
func (e *syncEntry) withTags(tags []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool {
		_, refers := registry.IsReferrersTag(tag)
		return refers || !e.tags(tag)
	})
}
