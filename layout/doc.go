// Package layout is wherry's image store: an OCI image layout on disk that many
// processes may use at once, and the archives that go into and out of it.
//
// The folder is a valid image layout (image-layout.md of the OCI image
// specification) at every moment, also after a crash: blobs are verified,
// synced and renamed into place before index.json, the only state, names them.
// What else lies in the folder is hidden: lock files and unfinished blobs.
//
// Other tools read the folder as it is, among them ggcr's layout package. They may
// write it too while no wherry does: what they put into index.json is listed and kept.
//
// It does not talk to registries, does not build, and prints nothing.
package layout
