//go:build linux

package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
)

// buildOptions is a build as it was typed.
type buildOptions struct {
	Context       string
	File          string
	BuildContexts []string
	Tags          []string
	BuildArgs     []string
	Labels        []string
	Annotations   []string
	Target        string
	Platforms     []string
	NoCache       bool
	NoCacheFilter []string
	Pull          bool
	Push          bool
	Load          bool
	Outputs       []string
	CacheFrom     []string
	CacheTo       []string
	CacheSize     string
	Secrets       []string
	SSH           []string
	AddHosts      []string
	Network       string
	ShmSize       string
	Ulimits       []string
	CgroupParent  string
	EmulatorDir   string
	Isolation     string
	Resources     []string
	Allow         []string
	Attests       []string
	Provenance    string
	Reproducible  bool
	SBOM          string
	Call          string
	IIDFile       string
	MetadataFile  string
	Report        string
	Progress      string
	Quiet         bool
	Runtime       string
	Builder       string
	Policies      []string
	Confine       build.Confine
	NoEffect      []string // flags that were given and mean nothing here
}

// buildFlags are in the order of the help, which is that of their names.
func buildFlags() []cli.Flag {
	return byName(slices.Concat(sourceFlags(), resultFlags(), stepFlags(), displayFlags(), legacyBuildFlags()))
}

// sourceFlags say what is built.
func sourceFlags() []cli.Flag {
	return []cli.Flag{
		list("build-arg", "Set build-time variables (KEY=VALUE, or KEY for that of the environment)"),
		list("build-context", "Additional build contexts (as \"name=path\"; the path may be\n"+
			"docker-image://NAME, oci-layout://PATH:TAG, a git repository or a URL)"),
		list("cache-from", "External cache sources (as \"user/app:cache\", \"type=local,src=path/to/dir\")"),
		&cli.StringFlag{Name: "cache-size", Usage: "Let go of what was not used for long in a cache larger than this (WHERRY_CACHE_SIZE)\n" +
			"(default: what leaves a tenth of the disk free)"},
		&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "Name of the Dockerfile (default: \"PATH/Dockerfile\")"},
		&cli.BoolFlag{Name: "no-cache", Usage: "Do not use cache when building the image"},
		list("no-cache-filter", "Do not cache specified stages"),
		platformsFlag("Set target platform for build"),
		&cli.BoolFlag{Name: "pull", Usage: "Always attempt to pull all referenced images"},
		&cli.StringFlag{Name: "target", Usage: "Set the target build stage to build"},
	}
}

// resultFlags say what becomes of the result.
func resultFlags() []cli.Flag {
	return []cli.Flag{
		list("annotation", "Add annotation to the image"),
		list("attest", "Attestation parameters (as \"type=sbom,generator=image\")"),
		list("cache-to", "Cache export destinations (as \"user/app:cache\", \"type=local,dest=path/to/dir\")"),
		&cli.StringFlag{Name: "iidfile", Usage: "Write the image ID to a file"},
		list("label", "Set metadata for an image"),
		&cli.BoolFlag{Name: "load", Usage: "Put the result into the store (where it goes anyway)"},
		&cli.StringFlag{Name: "metadata-file", Usage: "Write build result metadata to a file"},
		list("output", "Output destination (as \"type=local,dest=path\")", "o"),
		&cli.StringFlag{Name: "provenance", Usage: "Shorthand for \"--attest=type=provenance\" (\"true\", \"mode=max\")"},
		&cli.BoolFlag{Name: "push", Usage: "Push the result under its names"},
		&cli.BoolFlag{Name: "reproducible", Usage: "Make the same image of the same source anywhere, at any time: files have the time in\n" +
			"SOURCE_DATE_EPOCH, else that of the last commit, else 0"},
		&cli.StringFlag{Name: "report", Usage: "Write to this file a page that shows where the time of the build went (HTML)"},
		&cli.StringFlag{Name: "sbom", Usage: "Shorthand for \"--attest=type=sbom\" (\"true\", \"generator=image\")"},
		list("tag", "Image identifier (as \"[registry/]repository[:tag]\")", "t"),
	}
}

// stepFlags say what surrounds the steps.
func stepFlags() []cli.Flag {
	return []cli.Flag{
		list("add-host", "Add a custom host-to-IP mapping (as \"host:ip\")"),
		list("allow", "Allow extra privileged entitlement (\"network.host\", \"security.insecure\", \"device\")"),
		&cli.StringFlag{Name: "cgroup-parent", Usage: "Set the parent cgroup for the \"RUN\" instructions during build"},
		emulatorDirFlag(),
		&cli.StringFlag{Name: "network", Value: "default", Usage: "Set the networking mode for the \"RUN\" instructions during build\n(\"host\", \"none\")"},
		&cli.StringFlag{Name: "isolation", Usage: "Container isolation technology (\"auto\", \"namespaces\", \"chroot\",\n\"none\": no RUN) (WHERRY_ISOLATION)"},
		list("resource", "Resource limits for the steps (as \"memory=2g\", \"cpu-quota=50000\")"),
		&cli.StringFlag{Name: "runtime", Usage: "Run the steps with this runc-like program instead of wherry itself"},
		list("security-opt", "What security modules take steps for (\"label=disable\", \"apparmor=unconfined\":\nthe same as wherry itself)"),
		list("secret", "Secret to expose to the build\n(as \"id=mysecret[,src=/local/secret]\" or \"id=mysecret,env=NAME\")"),
		&cli.StringFlag{Name: "shm-size", Usage: "Shared memory size for the steps (bytes; 64m is the default)"},
		list("ssh", "SSH agent socket or keys to expose to the build (as \"default|<id>[=<socket>|<key>[,<key>]]\")"),
		list("ulimit", "Ulimit options (as \"nofile=1024:2048\")"),
	}
}

// displayFlags say what is shown.
func displayFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "builder", Usage: "Override the configured builder instance (\"default\" is this process)"},
		&cli.StringFlag{Name: "call", Value: callBuild, Usage: "Set method for evaluating build (\"check\", \"outline\", \"targets\")"},
		&cli.BoolFlag{Name: "check", Usage: "Shorthand for \"--call=check\""},
		&cli.BoolFlag{Name: "debug", Aliases: []string{"D"}, Usage: "Enable debug logging (has no effect)"},
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "Set type of progress output (\"auto\", \"none\", \"plain\", \"quiet\", \"rawjson\", \"tty\")"},
		quietFlag("Suppress the build output and print image ID on success"),
		hidden(list("policy", "Policy configuration (not supported)")),
	}
}

// limitFlags are docker's older names for limits that --resource sets.
var limitFlags = []string{"memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"}

// idleFlags are those that docker's own builder ignores too, or had before BuildKit.
var idleFlags = []string{"compress", "force-rm", "rm", "squash", "debug"}

// legacyBuildFlags are what scripts still pass.
func legacyBuildFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "compress", Usage: "Compress the build context using gzip (has no effect)"},
		&cli.BoolFlag{Name: "force-rm", Usage: "Always remove intermediate containers (has no effect)"},
		&cli.BoolFlag{Name: "rm", Value: true, Usage: "Remove intermediate containers after a successful build (has no effect)"},
		&cli.BoolFlag{Name: "squash", Usage: "Squash newly built layers into a single new layer (has no effect)"},
	}
	short := map[string][]string{"memory": {"m"}, "cpu-shares": {"c"}}
	for _, name := range limitFlags {
		usage := "Same as --resource " + name + "=VALUE"
		if slices.Contains([]string{"cpu-shares", "cpu-period", "cpu-quota"}, name) {
			flags = append(flags, &cli.Int64Flag{Name: name, Aliases: short[name], Usage: usage})
		} else {
			flags = append(flags, &cli.StringFlag{Name: name, Aliases: short[name], Usage: usage})
		}
	}
	for _, f := range flags {
		hidden(f)
	}
	return flags
}

// list is a flag that may be repeated.
func list(name, usage string, aliases ...string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Aliases: aliases, Usage: usage}
}

// hidden takes a flag out of the help.
func hidden(f cli.Flag) cli.Flag {
	switch f := f.(type) {
	case *cli.BoolFlag:
		f.Hidden = true
	case *cli.Int64Flag:
		f.Hidden = true
	case *cli.StringFlag:
		f.Hidden = true
	case *cli.StringSliceFlag:
		f.Hidden = true
	}
	return f
}

// readBuildOptions takes the flags from the command line.
func readBuildOptions(c *cli.Context, context string) buildOptions {
	o := buildOptions{
		Context: context, File: c.String("file"), BuildContexts: c.StringSlice("build-context"),
		Tags: c.StringSlice("tag"), BuildArgs: c.StringSlice("build-arg"), Labels: c.StringSlice("label"),
		Annotations: c.StringSlice("annotation"), Target: c.String("target"), Platforms: c.StringSlice("platform"),
		NoCache: c.Bool("no-cache"), NoCacheFilter: c.StringSlice("no-cache-filter"), Pull: c.Bool("pull"), Push: c.Bool("push"), Load: c.Bool("load"),
		Outputs: c.StringSlice("output"), CacheFrom: c.StringSlice("cache-from"), CacheTo: c.StringSlice("cache-to"),
		CacheSize: c.String("cache-size"),
		Secrets:   c.StringSlice("secret"), SSH: c.StringSlice("ssh"), AddHosts: c.StringSlice("add-host"),
		Network: c.String("network"), ShmSize: c.String("shm-size"), Ulimits: c.StringSlice("ulimit"),
		CgroupParent: c.String("cgroup-parent"), EmulatorDir: c.String("emulator-dir"), Isolation: c.String("isolation"), Resources: c.StringSlice("resource"), Allow: c.StringSlice("allow"),
		Attests: c.StringSlice("attest"), Provenance: c.String("provenance"), SBOM: c.String("sbom"),
		Call: c.String("call"), IIDFile: c.String("iidfile"), MetadataFile: c.String("metadata-file"), Report: c.String("report"),
		Progress: c.String("progress"), Quiet: c.Bool("quiet"), Runtime: c.String("runtime"),
		Reproducible: c.Bool("reproducible"),
		Builder:      c.String("builder"), Policies: c.StringSlice("policy"),
	}
	if c.Bool("check") {
		o.Call = build.AskCheck
	}
	for _, name := range limitFlags {
		if c.IsSet(name) {
			o.Resources = append(o.Resources, fmt.Sprintf("%s=%v", name, c.Value(name)))
		}
	}
	o.Confine, o.NoEffect = confinement(c.StringSlice("security-opt"))
	for _, name := range idleFlags {
		if c.IsSet(name) {
			o.NoEffect = append(o.NoEffect, name)
		}
	}
	return o
}

// isolation is the kind that was asked for. Another runtime needs namespaces.
func (o buildOptions) isolation() string {
	if o.Runtime != "" {
		return firstOf(o.Isolation, string(build.IsolationNamespaces))
	}
	return o.Isolation
}
