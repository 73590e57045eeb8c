package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// buildInfo says which wherry this is; the toolchain puts it into every binary.
type buildInfo struct {
	Version   string
	GoVersion string
	GitCommit string
	BuildTime string
	Os        string
	Arch      string
}

type versionOptions struct {
	Format string
}

func newVersionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "Show the version of wherry",
		Flags: []cli.Flag{&cli.StringFlag{
			Name: "format", Aliases: []string{"f"}, Usage: "Format output using a custom template:\n" +
				"'json':             Print in JSON format\n" +
				"'TEMPLATE':         Print output using the given Go template",
		}},
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			return runVersion(e, versionOptions{Format: c.String("format")})
		},
	}
}

const versionFormat = `Client: wherry
 Version:	{{.Client.Version}}
 Go version:	{{.Client.GoVersion}}
 Git commit:	{{.Client.GitCommit}}
 Built:	{{.Client.BuildTime}}
 OS/Arch:	{{.Client.Os}}/{{.Client.Arch}}`

func runVersion(e *env, o versionOptions) error {
	v := struct{ Client buildInfo }{readBuildInfo()}
	return writeTemplate(&e.Out, o.Format, versionFormat, v)
}

func readBuildInfo() buildInfo {
	v := buildInfo{
		Version: "(devel)", GoVersion: runtime.Version(), GitCommit: "unknown", BuildTime: "unknown",
		Os: runtime.GOOS, Arch: runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = firstOf(info.Main.Version, v.Version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit = s.Value
		case "vcs.time":
			v.BuildTime = s.Value
		}
	}
	return v
}

func versionLine() string {
	v := readBuildInfo()
	return fmt.Sprintf("wherry version %s, build %.12s", v.Version, v.GitCommit)
}

// userAgent is how wherry names itself to registries.
func userAgent() string {
	v := readBuildInfo()
	return fmt.Sprintf("wherry/%s (%s/%s)", v.Version, v.Os, v.Arch)
}
