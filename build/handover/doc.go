// Package handover keeps a build's snapshots as plain folders, for places where nothing can be mounted: it calls
// neither mount nor unshare, and what it hands out needs neither.
//
// A child takes its parent's folder over by rename, which costs nothing however large the folder is. What the child
// has changed when it is committed is written as a layer (a tar); those layers are what a snapshot is, and the folders
// are a cache of them: the folder of a parent whose child has taken it is built again, when somebody asks for it, by
// winding back that of a descendant which nobody has asked for, or from the nearest ancestor that has one. What changed
// is found by comparing the folder with a manifest of what it was (inode, times, size, mode, owner), never by reading a
// parent.
//
// Open returns containerd's snapshotter; its Applier unpacks layers into such folders, and its Differ writes them with
// the names, order, owners, modes and times that BuildKit's differ of overlayfs would write. Where the process can't
// give files away (Options.OwnersAside) owners, modes and devices are noted beside the files, and the layers have them.
//
// It owns its state folder. It knows nothing of builds, steps and images.
package handover
