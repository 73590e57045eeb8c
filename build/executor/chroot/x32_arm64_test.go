package chroot

// x32Calls are those of an ABI that this machine does not have.
func x32Calls() []uintptr { return nil }
