// Package executor runs one RUN step of a build in namespaces of its own, without a container runtime on the host.
//
// New returns an implementation of BuildKit's executor.Executor. For each step the parent side mounts the root file
// system, lets BuildKit generate the OCI spec, boils it down to a plan, and starts this program again with InitArg0 as
// its name; that child (Init) mounts, pivots, drops what the step must not have, and becomes the step's first process
// by execve. What a step sees and leaves behind is what BuildKit with runc shows and leaves, except that no empty
// /dev, /proc or /sys stays in an image that had none.
//
// The package owns nothing of the image: snapshots, networks and secrets are handed to it.
package executor
