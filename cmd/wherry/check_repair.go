package main

import (
	"context"

	"github.com/wherry-oci/wherry/layout"
)

func (e *env) repair(ctx context.Context, store *layout.Store, o layout.CheckOptions, _ bool) (*layout.Report, error) {
	return store.Check(ctx, o)
}
