//go:build !linux

package layout

import (
	"errors"
	"os"
)

func cloneRange(_ *os.File, _ int64, _ *os.File, _, _ int64) error { return errors.ErrUnsupported }

func copyInKernel(_, _ *os.File, _ int64) (int64, error) { return 0, errors.ErrUnsupported }

func readAhead(*os.File, int64, int64) {}
