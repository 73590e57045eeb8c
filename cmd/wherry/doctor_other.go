//go:build !linux

package main

import (
	"context"
	"runtime"
)

func (e *env) systemFacts() systemFacts {
	return systemFacts{OS: runtime.GOOS, Kernel: runtime.GOOS, Arch: runtime.GOARCH, User: firstOf(e.Getenv("USER"), e.Getenv("USERNAME"))}
}

func filesystemOf(string) (name string, free int64) { return "", 0 }

func (e *env) findRungs(context.Context, string) (buildFacts, error) { return buildFacts{}, nil }

func (e *env) platformsOf(buildFacts) []platformFacts { return nil }

func (e *env) nodesInUse(context.Context) ([]nodeFacts, error) { return nil, nil }

// bestRung is nothing where nothing is built.
type bestRung struct{}
