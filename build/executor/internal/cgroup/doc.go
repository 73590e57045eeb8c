// Package cgroup holds a step in limits of memory and processor time: in a control group of its own, of version 2 or 1,
// below one that this process may divide.
package cgroup
