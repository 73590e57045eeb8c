// Package selinux decides what SELinux takes steps for, by asking the policy that is in force, and has what they see
// labelled for that.
package selinux
