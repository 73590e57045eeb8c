//go:build linux

package build

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
)

// Questions that [Ask] knows.
const (
	AskCheck   = "check"   // what is doubtful in the Dockerfile
	AskOutline = "outline" // the arguments, secrets and ssh agents that a target takes
	AskTargets = "targets" // the stages that can be built
)

// Answer is what the Dockerfile frontend says to a question.
type Answer struct {
	Text   string // for people
	JSON   string // for programs
	Failed bool   // it found something wrong
}

// Ask has the frontend answer a question about the request's Dockerfile. Nothing is
// built, and outputs do not matter. Errors are those of [Build].
func Ask(ctx context.Context, store Store, state State, r Request, question string) (*Answer, error) {
	return ask(ctx, func(ctx context.Context, do job) error { return onEngine(ctx, store, state, r, do) }, r, question)
}

// AskFarm is [Ask] on a node of a farm.
func AskFarm(ctx context.Context, store Store, state State, f Farm, r Request, question string) (*Answer, error) {
	return ask(ctx, func(ctx context.Context, do job) error { return onAnyNode(ctx, store, state, f, r, do) }, r, question)
}

// somewhere does a job on an engine or a node.
type somewhere func(ctx context.Context, do job) error

func ask(ctx context.Context, at somewhere, r Request, question string) (*Answer, error) {
	request, known := map[string]string{
		AskCheck: lint.RequestLint, AskOutline: outline.RequestSubrequestsOutline, AskTargets: targets.RequestTargets,
	}[question]
	if !known {
		return nil, fmt.Errorf("no question %q: there is %s, %s and %s", question, AskCheck, AskOutline, AskTargets)
	}
	answer := &Answer{}
	err := at(ctx, func(ctx context.Context, c *client.Client, _ *ownEngine, opt client.SolveOpt) error {
		attrs, frontend := opt.FrontendAttrs, opt.Frontend
		attrs["requestid"] = request
		ask := func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			res, err := g.Solve(ctx, gateway.SolveRequest{Frontend: frontend, FrontendOpt: attrs})
			if err == nil {
				answer = answerOf(res)
			}
			return gateway.NewResult(), err // an answer is nothing to export
		}
		opt.Internal = true
		_, err := solve(ctx, r.Progress, newRecorder(time.Now(), entitlements(r)), func(status chan *client.SolveStatus) (*client.SolveResponse, error) {
			return c.Build(ctx, opt, "wherry", ask, status)
		})
		return err
	})
	return answer, err
}

func answerOf(res *gateway.Result) *Answer {
	status, err := strconv.Atoi(string(res.Metadata["result.statuscode"]))
	return &Answer{
		Text: string(res.Metadata["result.txt"]), JSON: string(res.Metadata["result.json"]), Failed: err == nil && status != 0,
	}
}
