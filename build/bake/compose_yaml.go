package bake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/compose-spec/compose-go/v2/tree"
	"go.yaml.in/yaml/v4"
)

// composeDocument is a document of a compose file. What is tagged !reset is not among its
// values; replaced says where that was, and where the values are that are tagged !override.
// https://docs.docker.com/reference/compose-file/merge/#reset-value
type composeDocument struct {
	values   map[string]any
	replaced []tree.Path
}

// A document with aliases can be far larger than its text.
const (
	maxComposeNodes = 100_000
	maxComposeDepth = 100
)

// composeDocuments reads the documents of a file.
func composeDocuments(data []byte) ([]*composeDocument, error) {
	var docs []*composeDocument
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		doc, err := decodeCompose(decoder)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
}

// decodeCompose reads the next document. At the end it is io.EOF.
func decodeCompose(decoder *yaml.Decoder) (*composeDocument, error) {
	var root yaml.Node
	if err := decoder.Decode(&root); err != nil {
		return nil, err
	}
	w := tagWalk{}
	if _, err := w.walk(&root, tree.NewPath(), 0); err != nil {
		return nil, err
	}
	var raw any
	if err := root.Decode(&raw); err != nil {
		return nil, err
	}
	values, err := stringKeys(raw, tree.NewPath())
	if err != nil {
		return nil, err
	}
	doc := &composeDocument{replaced: w.replaced}
	if doc.values, _ = values.(map[string]any); doc.values == nil && raw != nil {
		return nil, errors.New("the top level must be a mapping")
	}
	return doc, nil
}

// tagWalk takes out what is tagged !reset.
type tagWalk struct {
	replaced []tree.Path
	nodes    int
}

// walk says whether node stays.
func (w *tagWalk) walk(node *yaml.Node, at tree.Path, depth int) (bool, error) {
	if w.nodes++; w.nodes > maxComposeNodes || depth > maxComposeDepth {
		return false, errors.New("too many values, or too deep")
	}
	switch node.Tag {
	case "!reset":
		w.replaced = append(w.replaced, at)
		return false, nil
	case "!override":
		w.replaced = append(w.replaced, at)
	}
	switch node.Kind {
	case yaml.AliasNode:
		return w.walk(node.Alias, at, depth+1)
	case yaml.DocumentNode:
		return w.walk(node.Content[0], at, depth+1)
	case yaml.MappingNode:
		return true, w.walkMapping(node, at, depth)
	case yaml.SequenceNode:
		var kept []*yaml.Node
		for i, item := range node.Content {
			stays, err := w.walk(item, at.Next(strconv.Itoa(i)), depth+1)
			if err != nil {
				return false, err
			}
			if stays {
				kept = append(kept, item)
			}
		}
		node.Content = kept
	}
	return true, nil
}

func (w *tagWalk) walkMapping(node *yaml.Node, at tree.Path, depth int) error {
	var kept []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		next := at
		if key.Value != "<<" { // what is merged in stands here
			next = at.Next(key.Value)
		}
		stays, err := w.walk(value, next, depth+1)
		if err != nil {
			return err
		}
		if stays {
			kept = append(kept, key, value)
		}
	}
	node.Content = kept
	return nil
}

// stringKeys has every mapping with texts as keys, as compose wants them.
func stringKeys(v any, at tree.Path) (any, error) {
	var err error
	switch v := v.(type) {
	case map[any]any:
		out := map[string]any{}
		for k, e := range v {
			name, ok := k.(string)
			if !ok {
				return nil, fmt.Errorf("the key %v at %q must be a string", k, at)
			}
			if out[name], err = stringKeys(e, at.Next(name)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		for k, e := range v {
			if v[k], err = stringKeys(e, at.Next(k)); err != nil {
				return nil, err
			}
		}
	case []any:
		if v == nil {
			return []any{}, nil
		}
		for i, e := range v {
			if v[i], err = stringKeys(e, at.Next(strconv.Itoa(i))); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// drop removes what a later document replaces.
func drop(v any, replaced []tree.Path, at tree.Path) {
	model, ok := v.(map[string]any)
	if !ok || len(replaced) == 0 {
		return
	}
	for k, e := range model {
		next := at.Next(k)
		for _, r := range replaced {
			if next.Matches(r) {
				delete(model, k)
			}
		}
		drop(e, replaced, next)
	}
}
