package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"
)

// program is the name the commands are typed under.
const program = "wherry"

// newBuildCommand, the constructor of build, lives in build.go (Linux) and in
// nobuild.go (everywhere else): func newBuildCommand(e *env) *cli.Command.

// commands returns the commands as they are typed in their short form, each made
// by the constructor in the file of its name.
func commands(e *env) []*cli.Command {
	return []*cli.Command{
		newBuildCommand(e),
		newBakeCommand(e),
		newPullCommand(e),
		newPushCommand(e),
		newCopyCommand(e),
		newSyncCommand(e),
		newTagCommand(e),
		newImagesCommand(e),
		newRmiCommand(e),
		newInspectCommand(e),
		newHistoryCommand(e),
		newSaveCommand(e),
		newLoadCommand(e),
		newImportCommand(e),
		newSearchCommand(e),
		newTagsCommand(e),
		newDeleteCommand(e),
		newPruneRemoteCommand(e),
		newCheckCommand(e),
		newLoginCommand(e),
		newLogoutCommand(e),
		newDoctorCommand(e),
		newCompletionCommand(e),
		newManCommand(e),
		newIndexCommand(e),
		newManifestCommand(e),
		newVersionCommand(e),
	}
}

// groups returns docker's long forms, which are the same commands once more.
func groups(e *env) []*cli.Command {
	return []*cli.Command{
		group("image", "Manage images",
			newBuildCommand(e),
			newHistoryCommand(e),
			newImportCommand(e),
			newInspectCommand(e),
			newLoadCommand(e),
			renamed(newImagesCommand(e), "ls", "list"),
			newPruneCommand(e),
			newPullCommand(e),
			newPushCommand(e),
			renamed(newRmiCommand(e), "rm", "remove", "rmi"),
			newSaveCommand(e),
			newTagCommand(e),
		),
		group("system", "Manage the store", newDfCommand(e)),
		group("builder", "Manage builds", builderCommands(e)...),
		group("buildx", "Build with BuildKit", append(buildxCommands(e), newBakeCommand(e), imagetoolsCommand(e), buildxVersionCommand(e))...),
	}
}

func group(name, usage string, members ...*cli.Command) *cli.Command {
	return &cli.Command{Name: name, Usage: usage, ArgsUsage: "COMMAND", Subcommands: members}
}

func renamed(c *cli.Command, name string, aliases ...string) *cli.Command {
	c.Name, c.Aliases = name, aliases
	return c
}

// newApp returns the whole command tree. It does nothing but dispatch: what a
// command line means is settled by parseArgs before, what an error means by
// report after.
func newApp(e *env) *cli.App {
	app := &cli.App{
		Name:                      program,
		Usage:                     "Build, ship and carry container images without a daemon",
		Flags:                     append(globalFlags(e), dockerGlobals(e)...),
		Commands:                  append(append(commands(e), groups(e)...), newWordsCommand(e)),
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		OnUsageError:              usageErrorOf,
		ExitErrHandler:            func(*cli.Context, error) {},
		Writer:                    &e.Out,
		ErrWriter:                 e.Stderr,
	}
	for _, c := range app.Commands {
		quietHelp(c)
	}
	return app
}

// quietHelp takes urfave's own help and usage errors out of c and everything below it.
func quietHelp(c *cli.Command) {
	c.HideHelp, c.HideHelpCommand, c.OnUsageError = true, true, usageErrorOf
	for _, sub := range c.Subcommands {
		quietHelp(sub)
	}
}

func usageErrorOf(c *cli.Context, err error, _ bool) error {
	return &usageError{command: commandPath(c), err: err}
}

func globalFlags(e *env) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "store", Usage: "Keep images in this folder (WHERRY_STORE)",
			DefaultText: "-", Destination: &e.StoreDir,
		},
		&cli.StringFlag{
			Name: "config", Usage: "Location of docker's client configuration (DOCKER_CONFIG)",
			DefaultText: "-", Destination: &e.ConfigDir,
		},
	}
}

// run executes one command line and returns the exit code. Only a command that
// succeeded prints on stdout.
func run(ctx context.Context, e *env, args []string) int {
	app := newApp(e)
	line, err := parseArgs(app, args)
	switch {
	case err != nil:
	case line.version:
		fmt.Fprintln(&e.Out, versionLine())
	case line.help:
		err = writeHelp(&e.Out, app, line.path)
	default:
		err = app.RunContext(ctx, line.argv)
		e.sayIdle(err)
	}
	if err == nil {
		err = e.flush()
	}
	return report(ctx, e, err)
}

// commandPath is what was typed to reach c's command: "wherry image ls".
func commandPath(c *cli.Context) string {
	var names []string
	for _, one := range c.Lineage() {
		if one.Command != nil && one.Command.Name != "" && one.Command.Name != program {
			names = append(names, " "+one.Command.Name)
		}
	}
	slices.Reverse(names)
	path := program
	for _, n := range names {
		path += n
	}
	return path
}
