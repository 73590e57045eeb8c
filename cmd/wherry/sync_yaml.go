package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds on a list of images.
const (
	maxSyncFile  = 4 << 20
	maxSyncNodes = 200_000 // aliases make much of little
)

// yamlReader walks through a YAML document and knows by name what it does not
// support: a list must not be read by halves.
type yamlReader struct{ nodes int }

// lineError is one about a line of a list.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

func lineErrorf(n *yaml.Node, format string, args ...any) error {
	return &lineError{n.Line, fmt.Errorf(format, args...)}
}

// readYAML reads the one document in r.
func readYAML(r io.Reader) (*yaml.Node, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSyncFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxSyncFile {
		return nil, fmt.Errorf("larger than %d MiB", maxSyncFile>>20)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, errors.New("it is empty")
	}
	return doc.Content[0], nil
}

// resolve follows an alias, and counts.
func (y *yamlReader) resolve(n *yaml.Node) (*yaml.Node, error) {
	if y.nodes++; y.nodes > maxSyncNodes {
		return nil, lineErrorf(n, "more than %d values", maxSyncNodes)
	}
	if n.Kind == yaml.AliasNode {
		return n.Alias, nil
	}
	return n, nil
}

// keys are what a mapping may have. "*" takes all others.
type keys map[string]func(key string, n *yaml.Node) error

// mapping reads n, which is described as what.
func (y *yamlReader) mapping(n *yaml.Node, what string, known keys) error {
	n, err := y.resolve(n)
	if err != nil {
		return err
	}
	if n.Kind != yaml.MappingNode {
		return lineErrorf(n, "%s is no mapping", what)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "<<" { // what is merged in counts less than what is written
			if err := y.mapping(n.Content[i+1], what, known); err != nil {
				return err
			}
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		read := known[key.Value]
		if read == nil {
			read = known["*"]
		}
		switch {
		case key.Value == "<<", strings.HasPrefix(key.Value, "x-"): // by convention for notes and anchors
		case read == nil:
			return lineErrorf(key, "%q in %s is not supported", key.Value, what)
		default:
			if err := read(key.Value, n.Content[i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// sequence has each see the elements of n.
func (y *yamlReader) sequence(n *yaml.Node, what string, each func(n *yaml.Node) error) error {
	n, err := y.resolve(n)
	if err != nil {
		return err
	}
	if n.Kind != yaml.SequenceNode {
		return lineErrorf(n, "%s is no list", what)
	}
	for _, one := range n.Content {
		if err := each(one); err != nil {
			return err
		}
	}
	return nil
}

// into reads a single value.
func (y *yamlReader) into(to any) func(string, *yaml.Node) error {
	return func(key string, n *yaml.Node) error {
		n, err := y.resolve(n)
		if err != nil {
			return err
		}
		if text, ok := to.(*string); ok {
			if n.Kind != yaml.ScalarNode {
				return lineErrorf(n, "%q is no single value", key)
			}
			*text = n.Value // as it is written: 3.10 is a tag, not a number
			return nil
		}
		if err := n.Decode(to); err != nil {
			return lineErrorf(n, "%q cannot be %q", key, n.Value)
		}
		return nil
	}
}

// texts reads a list of words, or a single one.
func (y *yamlReader) texts(to *[]string) func(string, *yaml.Node) error {
	return func(key string, n *yaml.Node) error {
		one := func(n *yaml.Node) error {
			var s string
			err := y.into(&s)(key, n)
			*to = append(*to, s)
			return err
		}
		*to = nil
		resolved, err := y.resolve(n)
		if err != nil {
			return err
		}
		if resolved.Kind == yaml.ScalarNode {
			return one(resolved)
		}
		return y.sequence(resolved, fmt.Sprintf("%q", key), one)
	}
}
