// Package userns gives this program the privileges that building needs, without root and without a helper of ours.
//
// Enter runs the program again as root of a new user and mount namespace; for a caller who is root already, of a new
// mount namespace only, so that no mount of a build is seen outside or outlives it. Ids come from newuidmap and
// newgidmap (a range, by /etc/subuid and /etc/subgid); where these are missing only id 0 exists inside, and
// FakeOwnership lets chown pass. The package mounts nothing and reads no environment.
package userns
