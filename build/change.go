package build

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/system"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// changing are the instructions that change a config and nothing else.
const changing = "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD SHELL STOPSIGNAL USER VOLUME WORKDIR"

// Change applies the instructions of a Dockerfile to the config of an image for
// system os ("linux", "windows"; "" is linux), as docker import --change does:
// one after the other, with $VARIABLES taken from the ENV so far. Each change is
// a line of a Dockerfile, or several of them; those that would need a build
// (RUN, COPY, ...) are refused. An error names the instruction; config may have
// changed by then. It works on every system.
//
// The type is that of docker's image format, because the OCI's has no HEALTHCHECK,
// SHELL and ONBUILD.
func Change(config *dockerspec.DockerOCIImageConfig, os string, changes []string) error {
	if len(changes) == 0 {
		return nil
	}
	text := strings.Join(changes, "\n")
	parsed, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return fmt.Errorf("invalid change %q: %w", text, err)
	}
	c := changer{config: config, os: os, lex: shell.NewLex(parsed.EscapeToken)}
	for _, node := range parsed.AST.Children {
		if err := c.apply(node); err != nil {
			return fmt.Errorf("invalid change %q: %w", node.Original, err)
		}
	}
	return nil
}

type changer struct {
	config *dockerspec.DockerOCIImageConfig
	os     string
	lex    *shell.Lex
	cmdSet bool // by a CMD of these changes
}

func (c *changer) apply(node *parser.Node) error {
	if !slices.Contains(strings.Fields(changing), strings.ToUpper(node.Value)) {
		return fmt.Errorf("only %s can be applied to an image", changing)
	}
	command, err := instructions.ParseCommand(node)
	if err != nil {
		return err
	}
	if x, ok := command.(instructions.SupportsSingleWordExpansion); ok {
		if err := x.Expand(c.expand); err != nil {
			return err
		}
	}
	switch i := command.(type) {
	case *instructions.EnvCommand:
		for _, kv := range i.Env {
			c.setEnv(kv.Key, kv.Value)
		}
	case *instructions.LabelCommand:
		for _, kv := range i.Labels {
			put(&c.config.Labels, kv.Key, kv.Value)
		}
	case *instructions.ExposeCommand:
		return c.expose(i.Ports)
	case *instructions.VolumeCommand:
		return c.volumes(i.Volumes)
	case *instructions.WorkdirCommand:
		c.config.WorkingDir, err = system.NormalizeWorkdir(c.config.WorkingDir, i.Path, c.os)
		return err
	case *instructions.StopSignalCommand:
		if !isSignal(i.Signal) {
			return fmt.Errorf("no signal %q", i.Signal)
		}
		c.config.StopSignal = i.Signal
	default:
		c.process(command)
	}
	return nil
}

// process applies what says which process runs, and how.
func (c *changer) process(command instructions.Command) {
	switch i := command.(type) {
	case *instructions.CmdCommand:
		c.config.Cmd, c.cmdSet = c.commandLine(i.ShellDependantCmdLine), true
	case *instructions.EntrypointCommand:
		c.config.Entrypoint = c.commandLine(i.ShellDependantCmdLine)
		if !c.cmdSet { // what was there were another entrypoint's arguments
			c.config.Cmd = nil
		}
	case *instructions.ShellCommand:
		c.config.Shell = i.Shell
	case *instructions.UserCommand:
		c.config.User = i.User
	case *instructions.HealthCheckCommand:
		c.config.Healthcheck = i.Health
	case *instructions.OnbuildCommand:
		c.config.OnBuild = append(c.config.OnBuild, i.Expression)
	}
}

func (c *changer) expand(word string) (string, error) {
	word, _, err := c.lex.ProcessWord(word, shell.EnvsFromSlice(c.config.Env))
	return word, err
}

func (c *changer) setEnv(key, value string) {
	is := func(entry string) bool {
		k, _, _ := strings.Cut(entry, "=")
		return k == key || c.os == "windows" && strings.EqualFold(k, key)
	}
	if i := slices.IndexFunc(c.config.Env, is); i >= 0 {
		c.config.Env[i] = key + "=" + value
		return
	}
	c.config.Env = append(c.config.Env, key+"="+value)
}

// commandLine puts the shell in front of a line that is not in JSON form.
func (c *changer) commandLine(line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	sh := c.config.Shell
	switch {
	case len(sh) > 0:
	case c.os == "windows":
		sh = []string{"cmd", "/S", "/C"}
	default:
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), strings.Join(line.CmdLine, " "))
}

func (c *changer) volumes(list []string) error {
	for _, v := range list {
		if v == "" {
			return errors.New("the name of a volume is empty")
		}
		put(&c.config.Volumes, v, struct{}{})
	}
	return nil
}

func (c *changer) expose(list []string) error {
	for _, words := range list {
		specs, err := c.lex.ProcessWords(words, shell.EnvsFromSlice(c.config.Env))
		if err != nil {
			return err
		}
		for _, spec := range specs {
			ports, err := parsePorts(spec)
			if err != nil {
				return err
			}
			for _, p := range ports {
				put(&c.config.ExposedPorts, p, struct{}{})
			}
		}
	}
	return nil
}

// put is an assignment to a map that may not be there yet.
func put[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}
