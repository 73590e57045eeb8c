// Package e2e holds wherry's stories: scripts in testdata, each the real binary
// doing one thing that a person wants done, on real registries, other tools'
// archives and other users' rights. It knows the program only from outside and
// imports none of its packages.
package e2e
