// Command wherry builds, stores, publishes, carries and loads container images
// without a daemon. See the repository's README.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

func main() {
	reexec()
	holdCollector()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C is not caught: it ends the process at once
	os.Exit(run(ctx, newEnv(), os.Args))
}

// holdCollector has no garbage collected while the program starts: its first collection,
// a tenth of the time that a short command takes, would come just before that ends.
func holdCollector() {
	usual := debug.SetGCPercent(400)
	time.AfterFunc(100*time.Millisecond, func() { debug.SetGCPercent(usual) })
}
