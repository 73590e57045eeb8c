//go:build !linux

package layout

import (
	"errors"
	"os"
)

func startWriteback(*os.File, int64, int64) {}

func syncData(f *os.File) error { return f.Sync() }

func clone(_, _ *os.File) error { return errors.ErrUnsupported }
