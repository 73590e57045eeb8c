//go:build linux

package handover

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// entry is what a manifest says of one file. With owners kept aside, mode, owner and device are the noted ones.
type entry struct {
	path         string // slash-separated, from the root, which itself has no entry
	ino, nlink   uint64
	rdev         uint64
	mode         uint32 // with the bits of the type
	uid, gid     uint32
	size         int64
	mtime, ctime int64 // in nanoseconds
	capability   string
}

func (e *entry) kind() uint32    { return e.mode & unix.S_IFMT }
func (e *entry) isDir() bool     { return e.kind() == unix.S_IFDIR }
func (e *entry) isRegular() bool { return e.kind() == unix.S_IFREG }
func (e *entry) isSymlink() bool { return e.kind() == unix.S_IFLNK }

// linked says that other names may stand for the same file.
func (e *entry) linked() bool { return !e.isDir() && e.nlink > 1 }

// manifest describes a folder as it was when a snapshot was what stood in it.
type manifest struct {
	of      string // the snapshot's id, "" for the empty folder that a chain starts from
	entries []entry
}

// tick is how coarse the kernel's clock for files is, with something to spare.
func tick() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_REALTIME_COARSE, &t); err != nil {
		return 20 * time.Millisecond // twice that of the slowest
	}
	return 2 * time.Duration(t.Nano())
}

// newManifest is that of a snapshot whose folder was scanned since began. A file that was changed just before might be
// changed again within the same tick of the kernel's clock, and would look the same: it is given no time, so that its
// content decides.
func newManifest(of string, entries []entry, began time.Time) *manifest {
	m := &manifest{of: of, entries: slices.Clone(entries)}
	settled := began.Add(-tick()).UnixNano()
	for i := range m.entries {
		if e := &m.entries[i]; !e.isDir() && e.ctime > settled {
			e.ctime = 0
		}
	}
	return m
}

func entryOf(path string, st *unix.Stat_t) entry {
	nlink := uint64(st.Nlink) //nolint:unconvert // 32 bits on arm64
	return entry{
		path: path, ino: st.Ino, nlink: nlink, rdev: st.Rdev, mode: st.Mode, uid: st.Uid, gid: st.Gid,
		size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}
}

// manifestFormat is the first word of a manifest: another one is read as no manifest.
const manifestFormat = "handover-1"

// errNoManifest is returned for a manifest that is missing or can't be used.
var errNoManifest = errors.New("no manifest")

// write puts the manifest at path, in one step.
func (m *manifest) write(path string) error {
	b := appendString(appendString(nil, manifestFormat), m.of)
	b = binary.AppendUvarint(b, uint64(len(m.entries)))
	for i := range m.entries {
		b = m.entries[i].encode(b)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (e *entry) encode(b []byte) []byte {
	b = appendString(b, e.path)
	for _, n := range []uint64{e.ino, e.nlink, e.rdev, uint64(e.mode), uint64(e.uid), uint64(e.gid)} {
		b = binary.AppendUvarint(b, n)
	}
	for _, n := range []int64{e.size, e.mtime, e.ctime} {
		b = binary.AppendVarint(b, n)
	}
	return appendString(b, e.capability)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// readManifest returns the manifest at path, or errNoManifest.
func readManifest(path string) (*manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoManifest, err)
	}
	defer func() { _ = f.Close() }() // only read
	d := &decoder{r: bufio.NewReaderSize(f, 256<<10)}
	m := &manifest{of: d.start()}
	n := d.uint()
	m.entries = make([]entry, 0, min(n, 1<<20))
	for i := uint64(0); i < n && d.err == nil; i++ {
		m.entries = append(m.entries, d.entry())
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: read %q: %w", errNoManifest, path, d.err)
	}
	return m, nil
}

// describes returns the id of the snapshot that the manifest at path describes, "" if there is none.
func describes(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	d := &decoder{r: bufio.NewReader(f)}
	return d.start()
}

// start reads what stands before the entries.
func (d *decoder) start() (of string) {
	if d.string() != manifestFormat && d.err == nil {
		d.err = errors.New("it has another format")
	}
	return d.string()
}

// decoder reads what write has written; its first error stays.
type decoder struct {
	r   *bufio.Reader
	err error
}

func (d *decoder) uint() uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	d.err = err
	return n
}

func (d *decoder) int() int64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadVarint(d.r)
	d.err = err
	return n
}

// maxString bounds a name or a capability: paths are at most 4096 bytes.
const maxString = 1 << 16

func (d *decoder) string() string {
	n := d.uint()
	if n > maxString {
		d.err = errors.New("a string is too long")
	}
	if d.err != nil {
		return ""
	}
	var s strings.Builder
	_, d.err = io.CopyN(&s, d.r, int64(n))
	return s.String()
}

func (d *decoder) entry() entry {
	return entry{
		path: d.string(), ino: d.uint(), nlink: d.uint(), rdev: d.uint(), mode: uint32(d.uint()),
		uid: uint32(d.uint()), gid: uint32(d.uint()), size: d.int(), mtime: d.int(), ctime: d.int(),
		capability: d.string(),
	}
}
