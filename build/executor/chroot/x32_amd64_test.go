package chroot

// x32Calls are x32's numbers of chroot, mount, ptrace, io_uring_setup, setns, kcmp, unshare and bpf.
func x32Calls() []uintptr {
	const bit = 0x40000000
	return []uintptr{bit | 161, bit | 165, bit | 521, bit | 425, bit | 308, bit | 312, bit | 272, bit | 321}
}
