package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"go.yaml.in/yaml/v4"
)

// regsyncList reads the list of regclient's regsync
// (https://github.com/regclient/regclient/blob/main/docs/regsync.md).
func (y *yamlReader) regsyncList(root *yaml.Node) (*syncList, error) {
	list := &syncList{}
	var common syncEntry
	version := 1
	settings := y.regsyncSettings(list, &common)
	settings["parallel"] = y.into(&list.jobs)
	err := y.mapping(root, "the list", keys{
		"version": y.into(&version), "creds": refuseSecrets("HOST"),
		"defaults": func(_ string, n *yaml.Node) error { return y.mapping(n, "\"defaults\"", settings) },
		"sync":     func(string, *yaml.Node) error { return nil },
	})
	if err != nil {
		return nil, err
	}
	if version != 1 {
		return nil, lineErrorf(root, "version %d of regsync's lists is not known", version)
	}
	err = y.sequence(valueOf(root, "sync"), "\"sync\"", func(n *yaml.Node) error {
		e, err := y.regsyncEntry(n, list, common)
		list.entries = append(list.entries, e)
		return err
	})
	return list, err
}

// regsyncSettings are those that defaults and entries share.
func (y *yamlReader) regsyncSettings(list *syncList, e *syncEntry) keys {
	flag := func(key string, n *yaml.Node) error {
		var on bool
		err := y.into(&on)(key, n)
		e.all = e.all || on
		return err
	}
	idle := func(key string, _ *yaml.Node) error {
		if note := fmt.Sprintf("%q of the list does nothing here", key); !slices.Contains(list.notes, note) {
			list.notes = append(list.notes, note)
		}
		return nil
	}
	return keys{
		"referrers": flag, "digestTags": flag,
		// Once is once, and registries say themselves when they want to be left alone.
		"interval": idle, "schedule": idle, "ratelimit": idle,
	}
}

func (y *yamlReader) regsyncEntry(n *yaml.Node, list *syncList, e syncEntry) (syncEntry, error) {
	e.line = n.Line
	kind, platform := "", ""
	var tags, repos regexRules
	known := y.regsyncSettings(list, &e)
	known["source"], known["target"], known["type"] = y.into(&e.from), y.into(&e.to), y.into(&kind)
	known["tags"], known["repos"] = y.regexRules(&tags), y.regexRules(&repos)
	known["platform"], known["platforms"] = y.into(&platform), y.texts(&e.platforms)
	if err := y.mapping(n, "\"sync\"", known); err != nil {
		return e, err
	}
	if platform != "" {
		e.platforms = []string{platform}
	}
	if strings.Contains(e.from+e.to, "{{") {
		return e, lineErrorf(n, "templates in \"source\" and \"target\" are not supported")
	}
	var err error
	switch kind {
	case "image":
	case "repository":
		e.tags, err = tags.fits()
	case "registry":
		if e.tags, err = tags.fits(); err == nil {
			e.repos, err = repos.fits()
		}
		e.to = asPrefix(e.to)
	default:
		return e, lineErrorf(n, "\"type\" is %q, not image, repository or registry", kind)
	}
	if err != nil {
		return e, &lineError{n.Line, err}
	}
	return e, e.check(n)
}

// regexRules are lists of expressions that have to fit as a whole.
type regexRules struct{ allow, deny []string }

func (y *yamlReader) regexRules(r *regexRules) func(string, *yaml.Node) error {
	return func(key string, n *yaml.Node) error {
		return y.mapping(n, fmt.Sprintf("%q", key), keys{"allow": y.texts(&r.allow), "deny": y.texts(&r.deny)})
	}
}

func (r *regexRules) fits() (func(string) bool, error) {
	allow, err := wholeExpressions(r.allow)
	if err != nil {
		return nil, err
	}
	deny, err := wholeExpressions(r.deny)
	return func(s string) bool {
		fits := func(re *regexp.Regexp) bool { return re.MatchString(s) }
		return (len(allow) == 0 || slices.ContainsFunc(allow, fits)) && !slices.ContainsFunc(deny, fits)
	}, err
}

func wholeExpressions(texts []string) ([]*regexp.Regexp, error) {
	var all []*regexp.Regexp
	for _, text := range texts {
		re, err := regexp.Compile("^(?:" + text + ")$")
		if err != nil {
			return nil, fmt.Errorf("%q is no regular expression: %w", text, err)
		}
		all = append(all, re)
	}
	return all, nil
}

// refuseSecrets: passwords belong where docker keeps them, not in a list of images.
func refuseSecrets(host string) func(string, *yaml.Node) error {
	return func(key string, n *yaml.Node) error {
		err := lineErrorf(n, "%q: credentials and settings of registries are not read from lists", key)
		return withHint(err, "%s login %s", program, host)
	}
}

// skopeoList reads the list of skopeo sync --src yaml (skopeo-sync(1)), which does
// not say where the images go. As with skopeo they keep the last part of their
// names.
func (y *yamlReader) skopeoList(root *yaml.Node, to string) (*syncList, error) {
	list := &syncList{}
	err := y.mapping(root, "the list", keys{"*": func(host string, n *yaml.Node) error {
		add := func(n *yaml.Node, repo string, e syncEntry) error {
			e.line, e.from, e.to, e.lastPart = n.Line, host+"/"+repo, asPrefix(to), true
			list.entries = append(list.entries, e)
			return e.check(n)
		}
		return y.mapping(n, fmt.Sprintf("%q", host), y.skopeoKeys(host, add))
	}})
	return list, err
}

func (y *yamlReader) skopeoKeys(host string, add func(n *yaml.Node, repo string, e syncEntry) error) keys {
	each := func(read func(repo string, n *yaml.Node) error) func(string, *yaml.Node) error {
		return func(key string, n *yaml.Node) error { return y.mapping(n, fmt.Sprintf("%q", key), keys{"*": read}) }
	}
	return keys{
		"images": each(func(repo string, n *yaml.Node) error {
			var e syncEntry
			if err := y.texts(&e.exactly)(repo, n); err != nil {
				return err
			}
			if len(e.exactly) == 0 {
				e.tags = func(string) bool { return true }
			}
			return add(n, repo, e)
		}),
		"images-by-tag-regex": each(func(repo string, n *yaml.Node) error {
			re, err := regexp.Compile(n.Value)
			if err != nil {
				return lineErrorf(n, "%q is no regular expression", n.Value)
			}
			return add(n, repo, syncEntry{tags: re.MatchString})
		}),
		"images-by-semver": each(func(repo string, n *yaml.Node) error {
			within, err := semver.NewConstraint(n.Value)
			if err != nil {
				return lineErrorf(n, "%q is no range of versions", n.Value)
			}
			return add(n, repo, syncEntry{tags: func(tag string) bool {
				v, err := semver.NewVersion(tag)
				return err == nil && within.Check(v)
			}})
		}),
		"credentials": refuseSecrets(host),
		"cert-dir":    refuseSettings,
		"tls-verify": func(key string, n *yaml.Node) error {
			verify := true
			if err := y.into(&verify)(key, n); err != nil || verify {
				return err
			}
			return refuseSettings(key, n)
		},
	}
}

// refuseSettings of a registry that have a place of their own.
func refuseSettings(key string, n *yaml.Node) error {
	return lineErrorf(n, "%q: how registries are reached is not read from lists, but from certs.d/HOST/hosts.toml", key)
}
