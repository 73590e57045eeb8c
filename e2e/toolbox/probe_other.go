//go:build !amd64

package main

func waitingCalls() []int { return nil }
