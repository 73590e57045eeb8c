// Package seccomp compiles OCI seccomp profiles to programs for the kernel, without libseccomp, and loads them.
package seccomp
