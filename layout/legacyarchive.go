package layout

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// legacyFile names the images of docker's archives before 1.10:
// {"repository": {"tag": "v1 ID"}}. Each layer is a folder named after its v1 ID
// with the files json, layer.tar and VERSION (moby's image/spec/v1).
const legacyFile = "repositories"

// maxLegacyLayers is twice what docker ever stacked.
const maxLegacyLayers = 256

// legacyLayer is what matters here of a layer's json.
type legacyLayer struct {
	ID              string    `json:"id"`
	Parent          string    `json:"parent"`
	Created         time.Time `json:"created"`
	Author          string    `json:"author"`
	Comment         string    `json:"comment"`
	ContainerConfig struct {
		Cmd []string `json:"Cmd"`
	} `json:"container_config"`
	raw []byte
}

// legacyStep is an element of a config's history, with docker's own keys and
// their order: the config's digest is the image's ID in docker.
type legacyStep struct {
	Created   time.Time `json:"created"`
	Author    string    `json:"author,omitempty"`
	CreatedBy string    `json:"created_by,omitempty"`
	Comment   string    `json:"comment,omitempty"`
}

func (a *archive) hasLegacy() bool {
	for name := range a.files {
		if path.Base(name) == "layer.tar" && a.json(path.Join(path.Dir(name), "json")) != nil {
			return true
		}
	}
	return false
}

// legacyImages returns the images that repositories names, and those that
// nothing names and nothing is built upon.
func (a *archive) legacyImages(raw []byte) ([]*loaded, error) {
	layers, err := a.legacyLayers()
	if err != nil {
		return nil, err
	}
	names, err := legacyNames(raw)
	if err != nil {
		return nil, err
	}
	tops := legacyTops(layers, names)
	if len(tops) > maxImages {
		return nil, invalid("archive", "more than %d images in it", maxImages)
	}
	var found []*loaded
	for _, id := range tops {
		l, err := a.legacyImage(layers, id)
		if err != nil {
			return nil, err
		}
		for _, n := range names[id] {
			if err := l.addName(n); err != nil {
				return nil, err
			}
		}
		found = append(found, l)
	}
	if len(found) == 0 {
		return nil, invalid("archive", "there is no image in it")
	}
	return found, nil
}

// legacyNames returns sorted names by ID.
func legacyNames(raw []byte) (map[string][]string, error) {
	var repositories map[string]map[string]string
	if raw != nil {
		if err := parseJSON(raw, &repositories); err != nil {
			return nil, &InvalidError{What: "archive", Reason: "its file repositories is none of docker's", Err: err}
		}
	}
	names := map[string][]string{}
	for repo, tags := range repositories {
		for tag, id := range tags {
			names[id] = append(names[id], repo+":"+tag)
		}
	}
	for _, n := range names {
		slices.Sort(n)
	}
	return names, nil
}

func (a *archive) legacyLayers() (map[string]*legacyLayer, error) {
	layers := map[string]*legacyLayer{}
	for name, i := range a.files {
		id := path.Dir(name)
		if path.Base(name) != "json" || i.raw == nil || strings.Contains(id, "/") {
			continue
		}
		l := &legacyLayer{raw: i.raw}
		if err := parseJSON(i.raw, l); err != nil {
			return nil, &InvalidError{What: "archive", Reason: "layer " + id + " is none of docker's", Err: err}
		}
		layers[id] = l
	}
	return layers, nil
}

// legacyTops are the IDs of the images, sorted by their first name, then by ID.
func legacyTops(layers map[string]*legacyLayer, names map[string][]string) []string {
	below := map[string]bool{}
	for _, l := range layers {
		below[l.Parent] = true
	}
	var tops []string
	for id := range names {
		tops = append(tops, id)
	}
	for id := range layers {
		if !below[id] && names[id] == nil {
			tops = append(tops, id)
		}
	}
	slices.SortFunc(tops, func(x, y string) int {
		return strings.Compare(strings.Join(append(names[x], x), "\x00"), strings.Join(append(names[y], y), "\x00"))
	})
	return tops
}

// legacyImage makes the config of a v1 image as docker does when it loads one.
func (a *archive) legacyImage(layers map[string]*legacyLayer, top string) (*loaded, error) {
	var items []*item
	var history []legacyStep
	var diffIDs []v1.Hash
	for id := top; id != ""; id = layers[id].Parent {
		l := layers[id]
		if l == nil || len(items) == maxLegacyLayers {
			return nil, invalid("archive", "layer %q is missing, or built upon itself", id)
		}
		i, err := a.file(path.Join(id, "layer.tar"))
		if err != nil {
			return nil, err
		}
		items = append(items, i)
		diffIDs = append(diffIDs, i.digest)
		history = append(history, legacyStep{
			Created: l.Created, Author: l.Author, Comment: l.Comment,
			CreatedBy: strings.Join(l.ContainerConfig.Cmd, " "),
		})
	}
	slices.Reverse(items)
	slices.Reverse(history)
	slices.Reverse(diffIDs)
	raw, err := legacyConfig(layers[top].raw, diffIDs, history)
	if err != nil {
		return nil, err
	}
	l, err := a.made(raw, "")
	if err != nil {
		return nil, err
	}
	return a.assemble(a.blob(l.desc.Digest), items)
}

// legacyConfig follows moby's MakeConfigFromV1Config.
func legacyConfig(raw []byte, diffIDs []v1.Hash, history []legacyStep) ([]byte, error) {
	config := map[string]any{}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, &InvalidError{What: "archive", Reason: "a layer is none of docker's", Err: err}
	}
	for k, v := range fields {
		config[k] = v
	}
	for _, k := range []string{"id", "parent", "Size", "parent_id", "layer_id", "throwaway"} {
		delete(config, k)
	}
	config["rootfs"] = struct {
		Type    string    `json:"type"`
		DiffIDs []v1.Hash `json:"diff_ids,omitempty"`
	}{"layers", diffIDs}
	config["history"] = history
	return json.Marshal(config)
}
