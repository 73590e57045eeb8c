// Package bake reads files that define what to build: targets, groups of them and
// variables, in HCL, JSON or as compose files, as docker buildx bake has them.
//
// It owns the model and its rules: merging, inheritance, matrix, --set, links, and what a
// target asks for that has to be allowed. The expressions are evaluated by buildx' own
// parser. It builds nothing, and reads no environment but what it is handed.
//
// https://docs.docker.com/build/bake/reference/
package bake
