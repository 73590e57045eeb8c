// Command wherry builds, stores, publishes, carries and loads container images
// without a daemon. See the repository's README.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	reexec()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C is not caught: it ends the process at once
	os.Exit(run(ctx, newEnv(), os.Args))
}
