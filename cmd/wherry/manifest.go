package main

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

func newManifestCommand(e *env) *cli.Command {
	c := group("manifest", "Manage image manifests and manifest lists",
		manifestAnnotateCommand(e),
		manifestCreateCommand(e),
		manifestInspectCommand(e),
		manifestPushCommand(e),
		manifestRmCommand(e),
	)
	c.Description = `A manifest list lets one name stand for the same image on several platforms. It
is created here from images in registries or in the store, and is no image of
the store until it has been pushed, and pulled again.`
	return c
}

func insecureFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: "insecure", Usage: usage}
}

// listName reads the name of a manifest list.
func listName(typed string) (reference.Named, error) {
	ref, err := registry.ParseReference(typed)
	if err != nil {
		return nil, err
	}
	if _, ok := ref.(reference.Digested); ok {
		return nil, fmt.Errorf("%q names a digest: a manifest list is called by a tag", typed)
	}
	return ref, nil
}

// noManifest is docker's error for a list, or an image, that there is not.
func noManifest(ref reference.Named) error {
	return fmt.Errorf("no such manifest: %s", ref)
}

// noList is noManifest for who can create the list, by "manifest" or "index".
func noList(ref reference.Named, command string) error {
	operand := "MANIFEST"
	if command == "index" {
		operand = "SOURCE"
	}
	return withHint(noManifest(ref), "%s %s create %s %s...", program, command, reference.FamiliarString(ref), operand)
}
