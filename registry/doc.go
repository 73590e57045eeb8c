// Package registry is everything that talks to a registry: names and what they
// mean, credentials, which hosts serve a name, and the transfer of manifests and
// blobs in both directions.
//
// A [Client] resolves a name to an [Image], whose bytes are read one blob at a
// time and resume where they broke, and pushes what a [Source] offers. Hosts,
// mirrors, certificates and fallbacks come from containerd's hosts.toml and
// docker's certs.d; credentials from docker's config.json and its helpers.
//
// It keeps nothing on disk but credentials, selects no platforms, and prints
// nothing: what a person should know comes back as an error or through
// [Config.Notice].
package registry
