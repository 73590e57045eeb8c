package build

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// The kinds of outputs.
const (
	OutputImage     = "image"     // the image store
	OutputRegistry  = "registry"  // the image store, and pushed
	OutputOCI       = "oci"       // a tar in OCI layout
	OutputDocker    = "docker"    // a tar for docker load; without a destination the image store
	OutputLocal     = "local"     // the root file system as a folder
	OutputTar       = "tar"       // the root file system as a tar
	OutputCacheOnly = "cacheonly" // nothing but the build cache
)

// Output is one destination of a build's result.
type Output struct {
	Type  string            // one of the constants above
	Dest  string            // file or folder; "-" is standard output; "" where the type needs none
	Attrs map[string]string // BuildKit's attributes of that exporter
}

// ParseOutput reads what -o takes: "type=TYPE[,dest=PATH][,KEY=VALUE...]" as CSV,
// or a folder alone (type=local), or "-" alone (type=tar on standard output).
func ParseOutput(s string) (Output, error) {
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return Output{}, fmt.Errorf("invalid output %q: %w", s, err)
	}
	if len(fields) == 1 && fields[0] == s && !strings.HasPrefix(s, "type=") && !strings.HasPrefix(s, "dest=") {
		if s == "-" {
			return Output{Type: OutputTar, Dest: s}, nil
		}
		return Output{Type: OutputLocal, Dest: s}.checked(s)
	}
	o := Output{Attrs: map[string]string{}}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return Output{}, fmt.Errorf("invalid output %q: %q is not KEY=VALUE", s, f)
		}
		switch k = strings.ToLower(strings.TrimSpace(k)); k {
		case "type":
			o.Type = strings.ToLower(v)
		case "dest":
			o.Dest = v
		default:
			o.Attrs[k] = v
		}
	}
	return o.checked(s)
}

// checked refuses what can't work before anything is built.
func (o Output) checked(s string) (Output, error) {
	kinds := []string{OutputImage, OutputRegistry, OutputOCI, OutputDocker, OutputLocal, OutputTar, OutputCacheOnly}
	switch {
	case o.Type == "":
		return o, fmt.Errorf("invalid output %q: type is missing", s)
	case !slices.Contains(kinds, o.Type):
		return o, fmt.Errorf("invalid output %q: no type %q (there is %s)", s, o.Type, strings.Join(kinds, ", "))
	case o.Dest == "" && slices.Contains([]string{OutputOCI, OutputLocal, OutputTar}, o.Type):
		return o, fmt.Errorf("invalid output %q: dest is missing", s)
	case o.Dest == "-" && o.isFolder():
		return o, fmt.Errorf("invalid output %q: a folder can't go to standard output", s)
	case o.Dest != "" && slices.Contains([]string{OutputImage, OutputRegistry, OutputCacheOnly}, o.Type):
		return o, fmt.Errorf("invalid output %q: type %s takes no dest", s, o.Type)
	}
	return o, nil
}

// isFolder reports whether the result is a folder, not one file.
func (o Output) isFolder() bool {
	if o.Type == OutputLocal {
		return true
	}
	asTar, err := strconv.ParseBool(o.Attrs["tar"])
	return err == nil && !asTar && (o.Type == OutputOCI || o.Type == OutputDocker)
}

// Pushed reports whether the result is to go to a registry under its names.
func (o Output) Pushed() bool {
	push, err := strconv.ParseBool(o.Attrs["push"])
	return o.Type == OutputRegistry || o.Type == OutputImage && err == nil && push
}

// Insecure reports whether the registry that the result goes to need not prove who it is.
func (o Output) Insecure() bool {
	insecure, err := strconv.ParseBool(o.Attrs["registry.insecure"])
	return err == nil && insecure
}

// ByDigest reports whether the result gets no tag, in the registry and in the image
// store: its name is that of the repository, and it is called by its digest. So jobs
// that build one platform each don't get in each other's way.
func (o Output) ByDigest() bool {
	byDigest, err := strconv.ParseBool(o.Attrs["push-by-digest"])
	return err == nil && byDigest && o.toStore()
}

// toStore reports whether the result is named in the image store.
func (o Output) toStore() bool {
	return o.Type == OutputImage || o.Type == OutputRegistry || o.Type == OutputDocker && o.Dest == ""
}
