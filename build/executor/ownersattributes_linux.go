package executor

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// maxAttribute is the size that the kernel allows for an attribute and for a list of their names (xattr(7)).
const maxAttribute = 64 << 10

// attributeCalls are those that tell and set extended attributes, as far as they have to do with owners.
func attributeCalls() map[string]ownersCall {
	list, set := (*ownersCaller).listAttributes, (*ownersCaller).setAttribute
	return map[string]ownersCall{
		"listxattr":   {fd: -1, path: 0, more: 1, flags: -1, answer: list},
		"llistxattr":  {fd: -1, path: 0, more: 1, flags: -1, nofollow: true, answer: list},
		"flistxattr":  {fd: 0, path: -1, more: 1, flags: -1, answer: list},
		"listxattrat": {fd: 0, path: 1, more: 3, flags: 2, answer: list},
		"setxattr":    {fd: -1, path: 0, more: 1, flags: -1, answer: set},
		"lsetxattr":   {fd: -1, path: 0, more: 1, flags: -1, nofollow: true, answer: set},
		"fsetxattr":   {fd: 0, path: -1, more: 1, flags: -1, answer: set},
	}
}

// listAttributes leaves out what an owner is noted in: whoever copies a file with its attributes would copy its owner.
func (c *ownersCaller) listAttributes(call ownersCall) error {
	fd, err := c.file(call)
	if err != nil {
		return errGoOn
	}
	defer step.Closing(fd)
	names := make([]byte, maxAttribute)
	size, err := unix.Listxattr(opened(fd), names)
	if err != nil {
		return errGoOn
	}
	hidden := append([]byte(c.s.owners.Attribute()), 0)
	at := bytes.Index(append([]byte{0}, names[:size]...), append([]byte{0}, hidden...))
	if at < 0 {
		return errGoOn
	}
	names = append(names[:at], names[at+len(hidden):size]...)
	c.result = int64(len(names))
	switch room := c.n.Args[call.more+1]; {
	case room == 0 || len(names) == 0:
		return nil
	case room < uint64(len(names)):
		return unix.ERANGE
	}
	return c.store(c.n.Args[call.more], names)
}

// setAttribute sets an access control list without the users and groups that are not there, for which the kernel would
// refuse all of it. The file's mode is the same: in it stands the list's mask.
func (c *ownersCaller) setAttribute(call ownersCall) error {
	name, err := c.text(c.n.Args[call.more])
	if err != nil || name != "system.posix_acl_access" && name != "system.posix_acl_default" {
		return errGoOn
	}
	size := c.n.Args[call.more+2]
	if size == 0 || size > maxAttribute {
		return errGoOn
	}
	list := make([]byte, size)
	if c.load(c.n.Args[call.more+1], list) < len(list) || !c.s.waits(c.n) {
		return errGoOn
	}
	kept := rootsEntries(list)
	if len(kept) == len(list) {
		return errGoOn
	}
	fd, err := c.file(call)
	if err != nil {
		return err
	}
	defer step.Closing(fd)
	if !c.s.waits(c.n) {
		return unix.ESRCH
	}
	return unix.Setxattr(opened(fd), name, kept, int(int32(c.n.Args[call.more+3])))
}

// rootsEntries is a POSIX access control list as the kernel is given it (linux/posix_acl_xattr.h), without what it says
// of other users and groups than root. What is no such list stays as it is.
func rootsEntries(list []byte) []byte {
	const header, entry, user, group = 4, 8, 0x02, 0x08
	if len(list) < header || (len(list)-header)%entry != 0 || binary.LittleEndian.Uint32(list) != 2 {
		return list
	}
	kept := bytes.Clone(list[:header])
	for e := list[header:]; len(e) > 0; e = e[entry:] {
		tag, id := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint32(e[4:])
		if tag != user && tag != group || id == 0 {
			kept = append(kept, e[:entry]...)
		}
	}
	return kept
}

// opened names an open file, also one of O_PATH, for calls that take a path.
func opened(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
