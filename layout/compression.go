package layout

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxWindow bounds what any block or frame of a compressed stream may have us
// remember: zstd's --long.
const maxWindow = 128 << 20

// compression is how a stream is packed, told by its first bytes.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
	xzed
	bzipped
)

// sniffLen bytes are enough for sniff.
const sniffLen = 6

func sniff(head []byte) compression {
	starts := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case starts("\x1f\x8b\x08"):
		return gzipped
	case starts("\x28\xb5\x2f\xfd"):
		return zstandard
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18")):
		return zstandard // a skippable frame in front, as pzstd writes it
	case starts("\xfd7zXZ\x00"):
		return xzed
	case starts("BZh"):
		return bzipped
	}
	return plain
}

// layerType is the media type of a layer packed like this; ok is false for what
// no image may have.
func (c compression) layerType() (t types.MediaType, ok bool) {
	switch c {
	case plain:
		return types.OCIUncompressedLayer, true
	case gzipped:
		return types.OCILayer, true
	case zstandard:
		return types.OCILayerZStd, true
	default:
		return "", false
	}
}

// unpack undoes whatever compression r has around it. Several members or frames
// one after the other are one stream, as the tools write them. Checksums are
// verified when the end is read. What unpacks to absurdly much is refused.
func unpack(r io.Reader) (io.Reader, func(), error) {
	in := &measured{r: r}
	br := bufio.NewReaderSize(in, bufferSize)
	head, err := br.Peek(sniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	var out io.Reader
	free := func() {}
	switch sniff(head) {
	case gzipped:
		out, err = gzip.NewReader(br)
	case zstandard:
		var d *zstd.Decoder
		if d, err = zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow)); err == nil {
			out, free = d, d.Close
		}
	case xzed:
		out, err = xz.NewReader(br, maxWindow)
	case bzipped:
		out = bzip2.NewReader(br)
	default:
		return br, free, nil
	}
	if err != nil {
		return nil, nil, archiveError(err)
	}
	return &expansion{out: out, in: in}, free, nil
}
