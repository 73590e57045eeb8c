//go:build linux

package engine

import (
	"context"
	"maps"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
)

// frontends returns the built-in Dockerfile frontend and the gateway that runs
// frontend images.
func frontends(workers *worker.Controller, emulation *Emulation) (dockerfileFrontend, gatewayFrontend frontend.Frontend, err error) {
	if emulation == nil { // there are no steps at all
		all := func(map[string]string) (refusal, bool) { return everyStep, true }
		builtin := noSteps{tellingFrontend{forwarder.NewGatewayForwarder(workers.Infos(), dockerfile.Build)}, all}
		return builtin, &syntaxGateway{builtin: builtin, images: noImages{}}, nil
	}
	builtin := forwarder.NewGatewayForwarder(workers.Infos(), dockerfile.Build)
	images, err := gateway.NewGatewayFrontend(workers.Infos(), nil)
	if err != nil {
		return nil, nil, err
	}
	own := foreignSteps{Frontend: tellingFrontend{builtin}, emulation: emulation, inside: true}
	return own, &syntaxGateway{builtin: own, images: foreignSteps{Frontend: tellingFrontend{images}, emulation: emulation}}, nil
}

// syntaxGateway answers "# syntax=docker/dockerfile:..." with the built-in
// frontend, without the network. Any other frontend image is pulled and run.
type syntaxGateway struct {
	builtin, images frontend.Frontend
}

func (g *syntaxGateway) Solve(ctx context.Context, llb frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	if !isDockerfileSyntax(opt[frontend.KeySource]) {
		return g.images.Solve(ctx, llb, exec, opt, inputs, sid, sm)
	}
	// "cmdline" stays set: it keeps the built-in frontend from forwarding here again.
	own := maps.Clone(opt)
	delete(own, frontend.KeySource)
	return g.builtin.Solve(ctx, llb, exec, own, inputs, sid, sm)
}

func isDockerfileSyntax(image string) bool {
	name, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	return name.Name() == "docker.io/docker/dockerfile" || strings.HasPrefix(name.Name(), "docker.io/docker/dockerfile-")
}
