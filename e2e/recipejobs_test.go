package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// recipeCommit is what is built.
const recipeCommit = "5f586719fcbb4a3c6e1c0e4d2a7b90f8d1e6c3b2"

// gitlabJob is what the file says of a job, and no more. https://docs.gitlab.com/ci/yaml/
type gitlabJob struct {
	Image  string
	Script []string
}

// gitlab runs the one job of a pipeline as the docker executor does: a container of docker's that is not privileged, in which a
// shell reads the lines of the script from its stdin.
func (r *recipe) gitlab() (recipeRun, error) {
	var pipeline map[string]gitlabJob
	if err := r.parse(&pipeline); err != nil {
		return nil, err
	}
	if len(pipeline) != 1 {
		return nil, errors.New("there has to be one job")
	}
	job := slices.Collect(maps.Values(pipeline))[0]
	const project = "/builds/team/app"
	return func(ctx context.Context, args ...string) (string, error) {
		o, err := r.newJob(ctx, job.Image, project)
		if err != nil {
			return "", err
		}
		for name, value := range map[string]string{
			"CI": "true", "CI_PROJECT_DIR": project, "CI_COMMIT_SHA": recipeCommit, "CI_COMMIT_SHORT_SHA": recipeCommit[:8],
			"CI_REGISTRY": "registry.corp", "CI_REGISTRY_IMAGE": "registry.corp/team/app",
			"CI_REGISTRY_USER": recipeUser, "CI_REGISTRY_PASSWORD": recipeToken,
		} {
			o.env = append(o.env, name+"="+value)
		}
		script := job.Script
		if args != nil {
			script = []string{"wherry " + quote(args)}
		}
		o.args, o.stdin = []string{"sh"}, []byte("set -eo pipefail\n"+strings.Join(script, "\n")+"\n")
		return o.run(ctx, r)
	}, nil
}

// newJob is a container for a job, with the project in a folder.
func (r *recipe) newJob(ctx context.Context, image, project string) (*outside, error) {
	config, err := r.config(ctx, "registry.corp/wherry:debug")
	if err != nil {
		return nil, err
	}
	// The image of a job on GitHub is the user's own. All that counts of it here is a shell, and wherry.
	if image != "registry.corp/wherry:debug" && image != "ghcr.io/team/ci:1" {
		return nil, fmt.Errorf("what is in %s?", image)
	}
	o, err := r.newOutside(ctx, "debug", account{name: "job"}, dockerCapabilities)
	if err != nil {
		return nil, err
	}
	o.env, o.cwd, o.mounts[project] = config.Env, project, r.project()
	return o, nil
}

// githubWorkflow is what the file says, and no more. https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax
type githubWorkflow struct {
	Name, On string
	Jobs     map[string]struct {
		RunsOn      string `yaml:"runs-on"`
		Permissions map[string]string
		Container   string
		Steps       []githubStep
	}
}

type githubStep struct {
	Uses, Run string
	Env       map[string]string
}

// github runs the one job of a workflow as the runner does: a container of docker's, which is not privileged, with the work folder
// and a home of the runner's, in which sh runs a file for each step.
func (r *recipe) github() (recipeRun, error) {
	var w githubWorkflow
	if err := r.parse(&w); err != nil {
		return nil, err
	}
	if len(w.Jobs) != 1 || w.On != "push" {
		return nil, errors.New("there has to be one job, on push")
	}
	job := slices.Collect(maps.Values(w.Jobs))[0]
	if job.Permissions["packages"] != "write" || job.Steps[0].Uses != "actions/checkout@v5" {
		return nil, errors.New("the token may write no package, or nothing is checked out first")
	}
	return func(ctx context.Context, args ...string) (string, error) {
		steps := job.Steps[1:]
		if args != nil {
			steps = []githubStep{{Run: "wherry " + quote(args)}}
		}
		return r.githubSteps(ctx, job.Container, steps)
	}, nil
}

func (r *recipe) githubSteps(ctx context.Context, image string, steps []githubStep) (all string, err error) {
	home, temp := filepath.Join(r.dir, "home"), filepath.Join(r.dir, "temp")
	if err := errors.Join(os.RemoveAll(home), os.MkdirAll(home, 0o755), os.MkdirAll(temp, 0o755)); err != nil {
		return "", err
	}
	for _, step := range steps {
		const project = "/__w/app/app"
		o, err := r.newJob(ctx, image, project)
		if err != nil {
			return "", err
		}
		o.mounts["/github/home"], o.mounts["/__w/_temp"] = home, temp
		o.env = append(o.env, "CI=true", "GITHUB_ACTIONS=true", "HOME=/github/home", "GITHUB_ACTOR="+recipeUser, "GITHUB_SHA="+recipeCommit)
		for name, value := range step.Env {
			if value, err = githubExpressions(value); err != nil {
				return "", err
			}
			o.env = append(o.env, name+"="+value)
		}
		script, err := githubExpressions(step.Run)
		if err != nil || step.Uses != "" {
			return "", errors.Join(err, fmt.Errorf("what is %+v?", step))
		}
		if err := os.WriteFile(filepath.Join(temp, "step.sh"), []byte(script), 0o644); err != nil {
			return "", err
		}
		o.args = []string{"sh", "-e", "/__w/_temp/step.sh"}
		out, err := o.run(ctx, r)
		all += out
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// githubExpressions puts in what is known in a workflow.
func githubExpressions(text string) (string, error) {
	known := map[string]string{"secrets.GITHUB_TOKEN": recipeToken, "github.repository": "team/app"}
	var err error
	return regexp.MustCompile(`\$\{\{ *([^}]*?) *\}\}`).ReplaceAllStringFunc(text, func(expression string) string {
		value, ok := known[strings.Trim(expression, "${} ")]
		if !ok {
			err = fmt.Errorf("what is %s?", expression)
		}
		return value
	}), err
}

// parse reads the recipe as yaml, of which everything has to be understood.
func (r *recipe) parse(into any) error {
	file, err := r.path()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return yaml.Load(text, into, yaml.WithKnownFields())
}

// quote writes arguments for a shell; none has a quote in it.
func quote(args []string) string { return "'" + strings.Join(args, "' '") + "'" }
