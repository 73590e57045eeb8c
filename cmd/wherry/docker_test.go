package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// dockerFlags are the flags of docker's image commands, as docker/cli and
// docker/buildx documented them in August 2026: the command, then each flag as
// its help shows it.
const dockerFlags = `
image ls: -a, --all; --digests; -f, --filter filter; --format string; --no-trunc; -q, --quiet; --tree
image pull: -a, --all-tags; --disable-content-trust; --platform string; -q, --quiet
image push: -a, --all-tags; --disable-content-trust; --platform string; -q, --quiet
image tag:
image rm: -f, --force; --no-prune; --platform stringSlice
image save: -o, --output string; --platform stringSlice
image load: -i, --input string; --platform stringSlice; -q, --quiet
image import: -c, --change list; -m, --message string; --platform string
image history: --format string; -H, --human; --no-trunc; --platform string; -q, --quiet
image inspect: -f, --format string; --platform string
image prune: -a, --all; --filter filter; -f, --force
images: -a, --all; --digests; -f, --filter filter; --format string; --no-trunc; -q, --quiet; --tree
pull: -a, --all-tags; --disable-content-trust; --platform string; -q, --quiet
push: -a, --all-tags; --disable-content-trust; --platform string; -q, --quiet
tag:
rmi: -f, --force; --no-prune; --platform stringSlice
save: -o, --output string; --platform stringSlice
load: -i, --input string; --platform stringSlice; -q, --quiet
import: -c, --change list; -m, --message string; --platform string
history: --format string; -H, --human; --no-trunc; --platform string; -q, --quiet
inspect: -f, --format string; --platform string
search: -f, --filter filter; --format string; --limit int; --no-trunc
login: -p, --password string; --password-stdin; -u, --username string
logout:
manifest create: -a, --amend; --insecure
manifest annotate: --arch string; --os string; --os-features stringSlice; --os-version string; --variant string
manifest inspect: --insecure; -v, --verbose
manifest push: --insecure; -p, --purge
manifest rm:
system df: --format string; -v, --verbose
version: -f, --format string
build: --add-host stringSlice; --allow stringArray; --annotation stringArray; --attest stringArray; --build-arg stringArray; --build-context stringArray; --builder string; --cache-from stringArray; --cache-to stringArray; --call string; --cgroup-parent string; --check; -D, --debug; -f, --file string; --iidfile string; --label stringArray; --load; --metadata-file string; --network string; --no-cache; --no-cache-filter stringArray; -o, --output stringArray; --platform stringArray; --policy stringArray; --progress string; --provenance string; --pull; --push; -q, --quiet; --resource stringArray; --sbom string; --secret stringArray; --shm-size bytes; --ssh stringArray; -t, --tag stringArray; --target string; --ulimit ulimit
build: --compress; --cpu-period int; --cpu-quota int; -c, --cpu-shares int; --cpuset-cpus string; --cpuset-mems string; --force-rm; --isolation string; -m, --memory bytes; --memory-swap bytes; --rm; --security-opt stringSlice; --squash
buildx bake: --allow stringArray; --builder string; --call string; --check; -D, --debug; -f, --file stringArray; --list string; --load; --metadata-file string; --no-cache; --policy stringArray; --print; --progress string; --provenance string; --pull; --push; --sbom string; --set stringArray; --var stringArray
buildx du: --builder string; -D, --debug; --filter filter; --format string; --timeout duration; --verbose
buildx prune: -a, --all; --builder string; -D, --debug; --filter filter; -f, --force; --max-used-space bytes; --min-free-space bytes; --reserved-space bytes; --timeout duration; --verbose
buildx imagetools create: --annotation stringArray; --append; --builder string; -D, --debug; --dry-run; -f, --file stringArray; --metadata-file string; -p, --platform stringArray; --prefer-index; --progress string; -t, --tag stringArray
buildx imagetools inspect: --builder string; -D, --debug; --format string; --raw
buildx version:
`

// dockerMissing is what wherry does not have yet, in the form above; a command
// without flags is missing whole. Whoever brings one strikes it out here.
const dockerMissing = ``

// dockerOther is where the kind of a value differs on purpose: what docker takes
// is taken, and more.
func dockerOther() map[string]string {
	return map[string]string{
		"image pull --platform string": "--platform stringSlice", // several, or all
		"pull --platform string":       "--platform stringSlice",
		"build --platform stringArray": "--platform stringSlice", // docker splits at commas too

		"buildx imagetools create -p, --platform stringArray": "-p, --platform stringSlice",
	}
}

// Each flag of docker's is there, under the same shorthand and with the same kind of value.
func TestDockersFlags(t *testing.T) {
	app := newApp(&env{})
	missing := map[string]bool{}
	eachDockerFlag(t, dockerMissing, func(command, column string) { missing[command+" "+column] = true })
	eachDockerFlag(t, dockerFlags, func(command, column string) {
		c := commandAt(app, command)
		have := c != nil && (column == "" || hasColumn(c, column) || hasColumn(c, dockerOther()[command+" "+column]))
		expected := missing[command+" "] && column != "" || missing[command+" "+column]
		switch {
		case c != nil && missing[command+" "]:
			t.Errorf("wherry has %q: strike it out of dockerMissing", command)
		case !have && !expected:
			t.Errorf("docker has %q, wherry does not", strings.TrimSpace(command+" "+column))
		case have && missing[command+" "+column]:
			t.Errorf("wherry has %q: strike it out of dockerMissing", strings.TrimSpace(command+" "+column))
		}
	})
}

// eachDockerFlag reads lines as above; the column of a command itself is "".
func eachDockerFlag(t *testing.T, text string, visit func(command, column string)) {
	t.Helper()
	for line := range strings.Lines(text) {
		command, columns, flags := strings.Cut(strings.TrimSpace(line), ":")
		if command == "" {
			continue
		}
		if !flags || strings.TrimSpace(columns) == "" {
			visit(command, "")
			continue
		}
		for column := range strings.SplitSeq(columns, ";") {
			visit(command, strings.TrimSpace(column))
		}
	}
}

func commandAt(app *cli.App, path string) *cli.Command {
	list := app.Commands
	var found *cli.Command
	for name := range strings.FieldsSeq(path) {
		i := slices.IndexFunc(list, func(c *cli.Command) bool { return c.HasName(name) })
		if i < 0 {
			return nil
		}
		found, list = list[i], list[i].Subcommands
	}
	return found
}

func hasColumn(c *cli.Command, column string) bool {
	return column != "" && slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return strings.TrimSpace(flagColumn(f)) == column })
}
