package registry

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/pelletier/go-toml/v2"
)

// extension is the table of hosts.toml that is wherry's own. containerd's parser
// passes over tables that it does not know.
const extension = "x-wherry"

// exclusion keeps repositories from a host that would otherwise be asked for
// them: a private name must not reach a public registry, which would learn it,
// and could serve something else under it.
type exclusion struct {
	mu       sync.Mutex // patterns are compiled when they are first needed
	patterns *patternmatcher.PatternMatcher
}

// mayServe reports whether e may be asked for repo, which is a path such as
// "library/alpine" without the registry.
func (e *endpoint) mayServe(repo string) bool {
	if e.excluded == nil {
		return true
	}
	e.excluded.mu.Lock()
	defer e.excluded.mu.Unlock()
	excluded, err := e.excluded.patterns.MatchesOrParentMatches(repo)
	return err == nil && !excluded // newExclusion has refused what is no pattern
}

// readExclusions takes from the hosts.toml in dir what it keeps from endpoints:
//
//	[x-wherry.exclude]
//	"https://registry-1.docker.io" = ["team/*", "!team/public"]
//
// A pattern is one of .dockerignore: it also excludes everything below what it
// matches, and later ones beginning with "!" make exceptions. What cannot be
// understood is an error: ignoring it would let names out.
func readExclusions(dir string, endpoints []*endpoint) error {
	if dir == "" {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(dir, "hosts.toml"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := parseExclusions(raw)
	if err != nil {
		return err
	}
	return exclude(found, endpoints)
}

func parseExclusions(raw []byte) (map[string]*exclusion, error) {
	var file map[string]any
	if err := toml.Unmarshal(raw, &file); err != nil {
		return nil, err
	}
	for key := range file {
		if strings.HasPrefix(key, extension) && key != extension {
			return nil, fmt.Errorf("unknown key %q: want [%s.exclude]", key, extension)
		}
	}
	table, ok := file[extension].(map[string]any)
	if _, is := file[extension]; is && !ok {
		return nil, fmt.Errorf("%q is no table: want [%[1]s.exclude]", extension)
	}
	found := make(map[string]*exclusion)
	for key, value := range table {
		byHost, ok := value.(map[string]any)
		if key != "exclude" || !ok {
			return nil, fmt.Errorf("unknown key %q: want [%s.exclude]", extension+"."+key, extension)
		}
		for server, list := range byHost {
			host, err := serverHost(server)
			if err != nil {
				return nil, err
			}
			if found[host], err = newExclusion(list); err != nil {
				return nil, fmt.Errorf("%s.exclude of %q: %w", extension, server, err)
			}
		}
	}
	return found, nil
}

// serverHost reads a host as the rest of the file spells it, with its scheme or without.
func serverHost(server string) (string, error) {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%s.exclude: %q is no host", extension, server)
	}
	return accountOf(u.Host), nil
}

func newExclusion(list any) (*exclusion, error) {
	values, ok := list.([]any)
	if !ok || len(values) == 0 {
		return nil, errors.New(`want a list of patterns such as ["team/*"]`)
	}
	var patterns []string
	for _, v := range values {
		text, ok := v.(string)
		exception := strings.HasPrefix(text, "!")
		text = strings.Trim(strings.TrimPrefix(text, "!"), "/")
		if !ok || strings.TrimSpace(text) == "" {
			return nil, fmt.Errorf("%v is no pattern", v)
		}
		if exception {
			text = "!" + text
		}
		patterns = append(patterns, text)
	}
	m, err := patternmatcher.New(patterns)
	if err == nil {
		_, err = m.MatchesOrParentMatches("a") // compiles them
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", patterns, err)
	}
	return &exclusion{patterns: m}, nil
}

// exclude hands each endpoint what it is not to serve. Every host that is named
// has to be there.
func exclude(found map[string]*exclusion, endpoints []*endpoint) error {
	for host, x := range found {
		known := false
		for _, e := range endpoints {
			if accountOf(e.host) == host {
				e.excluded, known = x, true
			}
		}
		if !known {
			return fmt.Errorf("%s.exclude names %q, which is neither the server nor a host of this file", extension, host)
		}
	}
	return nil
}
