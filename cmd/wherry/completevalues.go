package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// valueKind is what an operand or a flag's value stands for.
type valueKind string

const (
	noKind       valueKind = ""
	imageKind    valueKind = "images"
	repoKind     valueKind = "repositories"
	fileKind     valueKind = "files"
	folderKind   valueKind = "folders"
	registryKind valueKind = "registries"
	listKind     valueKind = "lists"
	entryKind    valueKind = "entries"
	builderKind  valueKind = "builders"
	boolKind     valueKind = "true|false"
	// Any other is a choice of words: "bash|zsh|fish".
)

// operandKind reads the usage line of a command, as "FILE|URL|- [NAME[:TAG]]",
// for its operand number n, and says whether there may be more of that kind.
func operandKind(usage string, n int) (kind valueKind, repeated bool) {
	words := strings.Fields(strings.ReplaceAll(usage, " | ", "|"))
	if len(words) == 0 {
		return noKind, false
	}
	last := words[len(words)-1]
	repeated = strings.Contains(last, "...")
	if n >= len(words) {
		if !repeated {
			return noKind, false
		}
		n = len(words) - 1
	}
	word := words[n]
	switch strings.Trim(word, "[].") {
	case "REPOSITORY":
		return repoKind, repeated
	case "INDEX", "MANIFEST_LIST":
		return listKind, repeated
	case "ENTRY":
		return entryKind, repeated
	}
	for _, known := range []struct {
		kind valueKind
		in   []string
	}{
		{fileKind, []string{"FILE", "file", "ARCHIVE"}},
		{folderKind, []string{"PATH", "DIR"}},
		{registryKind, []string{"SERVER", "REGISTRY"}},
		{builderKind, []string{"BUILDER"}},
		{imageKind, []string{"IMAGE", "NAME", "REPO", "MANIFEST", "SOURCE"}},
	} {
		if slices.ContainsFunc(known.in, func(part string) bool { return strings.Contains(word, part) }) {
			return known.kind, repeated
		}
	}
	if strings.Contains(word, "|") && word == strings.ToLower(word) {
		return valueKind(word), false
	}
	return noKind, false
}

// values offers what a kind has; head stands before typed in the same word.
func (c *completer) values(kind valueKind, head, typed string) completion {
	switch kind {
	case noKind:
		return completion{}
	case fileKind, folderKind:
		return completion{adds: string(kind)}
	case imageKind:
		return c.images(head, typed)
	case listKind:
		return c.lists(head, typed)
	case entryKind:
		return c.entries(head, typed)
	case repoKind:
		var repos []string
		for _, name := range c.images("", "").list {
			repo, _, _ := splitName(name.value)
			repos = append(repos, repo)
		}
		slices.Sort(repos)
		return offer(plainCandidates(slices.Compact(repos)...), head, typed)
	case registryKind:
		return offer(plainCandidates(c.env.knownRegistries()...), head, typed)
	case builderKind:
		return offer(plainCandidates(c.env.knownBuilders()...), head, typed)
	}
	return offer(plainCandidates(strings.Split(string(kind), "|")...), head, typed)
}

// knownBuilders are the names of the user's builders, and of this process.
func (e *env) knownBuilders() []string {
	names := []string{"default"}
	files, _ := filepath.Glob(filepath.Join(e.buildersDir(), "*.json")) // the pattern is right
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	return names
}

// images offers names as people type them, and where typed is the beginning of
// an ID or of a full name, those.
func (c *completer) images(head, typed string) completion {
	store := c.env.existingStore()
	if store == nil {
		return completion{}
	}
	list, err := store.List()
	if err != nil {
		return completion{}
	}
	var names, others []candidate
	for _, img := range list {
		id := shortID(img.Descriptor().Digest.String())
		if typed != "" {
			others = append(others, candidate{id, familiarString(img.Name())})
		}
		if name := img.Name(); name != "" && plainName(name) {
			names = append(names, candidate{familiarString(name), id})
			others = append(others, candidate{name, id})
		}
	}
	found := offer(names, head, typed)
	if len(found.list) == 0 {
		found = offer(others, head, typed)
	}
	slices.SortFunc(found.list, func(a, b candidate) int { return strings.Compare(a.value, b.value) })
	found.list = slices.CompactFunc(found.list, func(a, b candidate) bool { return a.value == b.value })
	return found
}

// lists offers the names of drafts, and of images where none begins so.
func (c *completer) lists(head, typed string) completion {
	store := c.env.existingStore()
	if store == nil {
		return completion{}
	}
	names, _ := store.DraftNames() // without a list there are no names
	var list []candidate
	for _, name := range names {
		if plainName(name) {
			list = append(list, candidate{familiarString(name), "draft"})
		}
	}
	found := offer(list, head, typed)
	if len(found.list) == 0 {
		return c.images(head, typed)
	}
	slices.SortFunc(found.list, func(a, b candidate) int { return strings.Compare(a.value, b.value) })
	return found
}

// entries offers what is in the draft that stands before: by platform, or by what it was
// added by.
func (c *completer) entries(head, typed string) completion {
	store := c.env.existingStore()
	if store == nil || len(c.parser.operands) == 0 {
		return completion{}
	}
	name, err := registry.ParseReference(c.parser.operands[0])
	if err != nil {
		return completion{}
	}
	d, err := store.Draft(context.Background(), name.String())
	if err != nil {
		return completion{}
	}
	var list []candidate
	for _, m := range imagesIn(d.Members) {
		from := familiarRef(m.From)
		if on := platformText(m.Descriptor.Platform); on != "" && plainName(on) {
			list = append(list, candidate{on, from})
		}
		if plainName(from) && !slices.ContainsFunc(list, func(o candidate) bool { return o.value == from }) {
			list = append(list, candidate{from, shortID(m.Descriptor.Digest.String())})
		}
	}
	return offer(list, head, typed)
}

// plainName says whether a shell takes name as it is: a layout that others wrote
// may call its images anything.
func plainName(name string) bool {
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("._-/:@+", r):
		default:
			return false
		}
	}
	return true
}

// existingStore is the store without making one; nil if there is none.
func (e *env) existingStore() *layout.Store {
	dir, err := e.storeDir()
	if err != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil
	}
	store, err := layout.Open(dir)
	if err != nil {
		return nil
	}
	return store
}

// knownRegistries are those that somebody is logged in to, and those of the
// images in the store.
func (e *env) knownRegistries() []string {
	var hosts []string
	if file, err := config.Load(e.dockerConfigDir()); err == nil {
		for host := range file.AuthConfigs {
			hosts = append(hosts, host)
		}
	}
	if store := e.existingStore(); store != nil {
		list, _ := store.List() // without a list there are no names
		for _, img := range list {
			host, _, _ := strings.Cut(img.Name(), "/")
			hosts = append(hosts, host)
		}
	}
	hosts = slices.DeleteFunc(hosts, func(h string) bool { return h == "" || !plainName(h) || strings.Contains(h, "/") })
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// flagValue offers the values of f; head is what stands before typed in the same
// word ("--format=").
func (c *completer) flagValue(f cli.Flag, head, typed string) completion {
	usage := ""
	if doc, ok := f.(cli.DocGenerationFlag); ok {
		usage = doc.GetUsage()
	}
	_, many := f.(*cli.StringSliceFlag)
	switch name := f.Names()[0]; name {
	case "store", "config":
		return c.values(folderKind, head, typed)
	case "file", "input", "iidfile", "metadata-file", "report":
		return c.values(fileKind, head, typed)
	case "output":
		if !many {
			return c.values(fileKind, head, typed)
		}
		found := offer(plainCandidates("type=docker,dest=", "type=image", "type=local,dest=", "type=oci,dest=", "type=registry", "type=tar,dest="), head, typed)
		found.adds = "nospace"
		return found
	case "builder":
		return c.values(builderKind, head, typed)
	case "tag":
		return c.values(imageKind, head, typed)
	case "platform":
		if i := strings.LastIndexByte(typed, ','); i >= 0 && many {
			head, typed = head+typed[:i+1], typed[i+1:]
		}
		return offer(plainCandidates(append(quotedWords(usage), commonPlatforms()...)...), head, typed)
	case "filter":
		return c.filter(usage, head, typed)
	}
	return offer(plainCandidates(quotedWords(usage)...), head, typed)
}

// filter offers the keys that the flag's usage lists ("since=IMAGE"), and the
// values of the one that was typed.
func (c *completer) filter(usage, head, typed string) completion {
	key, value, given := strings.Cut(typed, "=")
	var keys []candidate
	for _, m := range regexp.MustCompile(`([a-z-]+)=([A-Z]+)`).FindAllStringSubmatch(usage, -1) {
		keys = append(keys, candidate{value: m[1] + "="})
		if !given || m[1] != key {
			continue
		}
		switch m[2] {
		case "BOOL":
			return c.values(boolKind, head+key+"=", value)
		case "IMAGE":
			return c.values(imageKind, head+key+"=", value)
		}
	}
	found := offer(keys, head, typed)
	found.adds = "nospace"
	return found
}

// quotedWords are the values that a usage text names: 'json', "auto".
func quotedWords(usage string) []string {
	var words []string
	for _, m := range regexp.MustCompile(`["']([a-z][a-z0-9]*)["']`).FindAllStringSubmatch(usage, -1) {
		words = append(words, m[1])
	}
	return words
}

// commonPlatforms are those that public images are built for.
func commonPlatforms() []string {
	return []string{
		"linux/386", "linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64",
		"linux/loong64", "linux/mips64le", "linux/ppc64le", "linux/riscv64", "linux/s390x", "windows/amd64",
	}
}
