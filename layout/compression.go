package layout

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxWindow bounds what a compressed stream may have us remember: zstd's --long.
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
// verified when the end is read.
func unpack(r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReaderSize(r, bufferSize)
	head, err := br.Peek(sniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	var out io.Reader = br
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
		if err = checkDictionary(br); err == nil {
			out, err = xz.NewReader(br)
		}
	case bzipped:
		out = bzip2.NewReader(br)
	default:
		err = nil
	}
	if err != nil {
		return nil, nil, archiveError(err)
	}
	return out, free, nil
}

// checkDictionary refuses an xz stream whose first block wants a dictionary of
// more than maxWindow bytes; the library would make room for 4 GiB without a
// question. (The format: xz-file-format.txt, 3.1 and 5.3.1.)
func checkDictionary(br *bufio.Reader) error {
	const streamHeader, maxBlockHeader, lzma2 = 12, 1024, 0x21
	head, _ := br.Peek(streamHeader + maxBlockHeader) // a short one is the reader's to refuse
	if len(head) < streamHeader+2 {
		return nil
	}
	flags, fields := head[streamHeader+1], head[streamHeader+2:]
	next := func() uint64 {
		v, n := binary.Uvarint(fields)
		fields = fields[max(n, 0):]
		return v
	}
	for _, sizes := range []byte{0x40, 0x80} { // compressed and uncompressed size, if they are there
		if flags&sizes != 0 {
			next()
		}
	}
	for range flags&3 + 1 {
		id, size := next(), next()
		if size > uint64(len(fields)) {
			return nil
		}
		if id == lzma2 && size == 1 {
			if bits := uint64(fields[0]); (2|bits&1)<<min(bits/2+11, 40) > maxWindow {
				return errors.New("its xz dictionary is too large")
			}
		}
		fields = fields[size:]
	}
	return nil
}
