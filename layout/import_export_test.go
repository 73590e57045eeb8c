package layout

import (
	"bytes"
	"errors"
	"testing"
)

// PackLayer compresses as Import does.
func PackLayer(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := newGzip(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Write(data)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
