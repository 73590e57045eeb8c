// Package chroot runs one RUN step of a build by chroot(2) alone: without one mount, unshare or setns, as root in a
// container that has docker's default seccomp profile and capabilities.
//
// New returns an implementation of BuildKit's executor.Executor for root file systems that are plain folders. What a
// step's mounts are to show is moved, copied or made in its place and taken out again (scene, undoer); a journal says
// what has to be undone after a kill (Recover). The step's supervisor is its reaper, kills its tree, and answers by
// seccomp user notification what the step asks of /proc and of terminals (server), since no procfs and no devpts can
// be mounted: programs see their own processes and nothing that docker hides.
//
// A step is held in by, in this order, capabilities (docker's without SYS_CHROOT, MKNOD and NET_RAW), Landlock (its
// root is the only hierarchy; signals and abstract sockets stay within) and seccomp (docker's profile, and what reaches
// out by a process's number, for every ABI). What stays possible: a step shares the network, the host name, SysV IPC
// and POSIX queues and the limits of memory and processes with the container, and can see the container's load and
// kernel settings. Its mounts are not protected from it: what it writes to a read-only one is thrown away, and what is
// said to be read-only does not say so; a tmpfs and a secret lie on the disk for as long as the step runs; a tmpfs has
// no size. Without Landlock's scopes (Linux 6.12) steps run one at a time, and abstract sockets are the container's.
//
// The price: no program in a step gains privileges (sudo and file capabilities do nothing), nothing can be mounted, no
// namespace and no other root entered, no device made, no raw socket opened; --network=none has no loopback either;
// calls with a path take about 10 microseconds more. A program that has changed its user or lost capabilities without
// executing another one can be looked into by nobody, so that it finds an empty /proc and no terminals (apt's log of
// what dpkg wrote); so do stat of a program of another ABI (i386), and paths that come to /proc by a link of the image
// that is not their last part. /sys is empty.
package chroot
