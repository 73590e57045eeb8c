//go:build linux

package engine

import (
	"context"

	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/worker"
)

// Exec tells what the step has made. (Only operations on files can be wrapped: of the
// others BuildKit's provenance wants to see its own type.)
func (o fileOp) Exec(ctx context.Context, jc solver.JobContext, inputs []solver.Result) ([]solver.Result, error) {
	results, err := o.solve(ctx, jc, inputs)
	var ids []string
	for _, r := range results {
		if ref, ok := r.Sys().(*worker.WorkerRef); ok && ref.ImmutableRef != nil {
			ids = append(ids, ref.ImmutableRef.ID())
		}
	}
	if len(ids) > 0 {
		tell(ctx, Facts{Results: ids})
	}
	return results, err
}

// tell sends facts along with the progress of the step that ctx belongs to.
func tell(ctx context.Context, f Facts) {
	w, ok, _ := progress.NewFromContext(ctx)
	if !ok {
		return
	}
	// A later status of the same ID would replace an earlier one.
	_ = w.Write(FactsID+identity.NewID(), progress.Status{Action: f.text()})
	_ = w.Close()
}
