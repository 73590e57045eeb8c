package bake

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
)

// IsRemote says whether a context, or what a definition is read from, is a git repository
// or on the web.
func IsRemote(s string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "ssh://", "github.com/", "git@"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// Rebase has the contexts of the targets relative to base, the URL of the git repository
// or the archive that the definition is in. If that is "", they stay as they are.
func (p *Plan) Rebase(base string) error {
	if base == "" {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Targets)) {
		t := p.Targets[name]
		dir, err := below(base, *t.Context)
		if err != nil {
			return fmt.Errorf("target %q: %w", name, err)
		}
		t.Context = &dir
		contexts := map[string]string{}
		for alias, from := range t.Contexts {
			if contexts[alias], err = below(base, from); err != nil {
				return fmt.Errorf("target %q: %w", name, err)
			}
		}
		if len(contexts) > 0 {
			t.Contexts = contexts
		}
	}
	return nil
}

// below is a folder that a definition at base names.
func below(base, dir string) (string, error) {
	if strings.HasPrefix(dir, cwdPrefix) || !isLocal(dir) || IsRemote(dir) {
		return dir, nil
	}
	dir = path.Clean(strings.TrimPrefix(path.Clean(dir), "/"))
	if dir == "." || dir == "" {
		return base, nil
	}
	if dir == ".." || strings.HasPrefix(dir, "../") {
		return "", fmt.Errorf("the context %q is outside of what the definition is in", dir)
	}
	if _, git, err := dfgitutil.ParseGitRef(base); !git || err != nil {
		return "", fmt.Errorf("the context %q is a part of an archive: only the whole one can be a context", dir)
	}
	if where, err := url.Parse(base); err == nil && where.Query().Has("subdir") && where.Fragment == "" {
		query := where.Query()
		query.Set("subdir", path.Join(query.Get("subdir"), dir))
		where.RawQuery = query.Encode()
		return where.String(), nil
	}
	repository, fragment, _ := strings.Cut(base, "#")
	ref, inside, _ := strings.Cut(fragment, ":")
	return repository + "#" + ref + ":" + path.Join(inside, dir), nil
}
