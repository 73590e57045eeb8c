package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// dockerGlobals are the options that scripts put between docker and its command.
// All of them are about the engine. Those that only say how it is talked to are
// taken, with a word that they do nothing here; one that names an engine
// elsewhere is refused, because the images would not be where the script expects them.
func dockerGlobals(e *env) []cli.Flag {
	noEffect := func(name string) { e.Idle = append(e.Idle, name) }
	ignoredBool := func(name, short string) cli.Flag {
		return &cli.BoolFlag{Name: name, Aliases: aliases(short), Hidden: true, Usage: "Has no effect", Action: func(*cli.Context, bool) error {
			noEffect(name)
			return nil
		}}
	}
	text := func(name, short string, action func(string) error) cli.Flag {
		return &cli.StringFlag{
			Name: name, Aliases: aliases(short), Hidden: true, Usage: "Has no effect",
			Action: func(_ *cli.Context, value string) error { return action(value) },
		}
	}
	ignored := func(name, short string) cli.Flag {
		return text(name, short, func(string) error {
			noEffect(name)
			return nil
		})
	}
	local := func(name, short string, is func(string) bool) cli.Flag {
		return text(name, short, func(value string) error {
			if !is(value) {
				return &usageError{command: program, err: fmt.Errorf("--%s %s: wherry talks to no engine, it works on the store of this machine", name, value)}
			}
			noEffect(name)
			return nil
		})
	}
	return []cli.Flag{
		local("context", "c", func(name string) bool { return name == "default" }),
		ignoredBool("debug", "D"),
		local("host", "H", func(url string) bool { return strings.HasPrefix(url, "unix://") || strings.HasPrefix(url, "npipe://") }),
		ignored("log-level", "l"),
		ignoredBool("tls", ""),
		ignored("tlscacert", ""),
		ignored("tlscert", ""),
		ignored("tlskey", ""),
		ignoredBool("tlsverify", ""),
	}
}

// sayIdle tells of the options that did nothing. A process that only started the
// one that ran the command (exitWith) leaves it to that one.
func (e *env) sayIdle(err error) {
	if _, ran := errors.AsType[exitWith](err); ran {
		return
	}
	for _, name := range e.Idle {
		e.say("note: --%s has no effect: there is no engine to talk to", name)
	}
}

func aliases(short string) []string {
	if short == "" {
		return nil
	}
	return []string{short}
}

// needsEngine says whether name is a command of docker's that works on
// containers and what belongs to them.
func needsEngine(name string) bool {
	return slices.Contains([]string{
		"attach", "checkpoint", "commit", "compose", "config", "container", "context", "cp", "create", "diff", "events", "exec",
		"export", "info", "kill", "logs", "network", "node", "pause", "plugin", "port", "ps", "rename", "restart", "rm", "run",
		"secret", "service", "stack", "start", "stats", "stop", "swarm", "top", "trust", "unpause", "update", "volume", "wait",
	}, name)
}
