// Package step has what the executors share, whatever they separate a step with: the parent side of a step's process
// (its streams, signals and end), the way to it over a control socket, and the last part of the child side, where a
// process gives up its rights and becomes the step.
//
// It knows nothing of mounts and namespaces.
package step
