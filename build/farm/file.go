package farm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-oci/wherry/platform"
)

const (
	fileSuffix  = ".json"
	currentName = "current" // the file that has the name of the builder in use
	maxFile     = 1 << 20   // bytes of one
)

// Folder is where builders are kept: a file NAME.json for each, for its owner alone. It
// need not be there yet.
type Folder string

// NoBuilderError is a name that no builder has.
type NoBuilderError struct{ Name string }

func (e *NoBuilderError) Error() string { return fmt.Sprintf("no builder %q", e.Name) }

// saved are builders in a file.
type saved struct {
	Nodes []savedNode `json:"nodes"`
}

type savedNode struct {
	Name       string   `json:"name"`
	Endpoint   string   `json:"endpoint"`
	Platforms  []string `json:"platforms,omitempty"`
	CACert     string   `json:"cacert,omitempty"`
	Cert       string   `json:"cert,omitempty"`
	Key        string   `json:"key,omitempty"`
	ServerName string   `json:"servername,omitempty"`
	Wait       string   `json:"wait,omitempty"`
}

// Names lists the builders, sorted.
func (f Folder) Names() ([]string, error) {
	entries, err := os.ReadDir(string(f))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), fileSuffix); ok && CheckName(name) == nil {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list, nil
}

// Get reads a builder. The error is a [*NoBuilderError] if there is none of that name.
func (f Folder) Get(name string) (*Builder, error) {
	if CheckName(name) != nil {
		return nil, &NoBuilderError{name}
	}
	text, err := readBounded(f.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoBuilderError{name}
	}
	if err != nil {
		return nil, fmt.Errorf("builder %q: %w", name, err)
	}
	var s saved
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("builder %q: %q can't be read: %w", name, f.file(name), err)
	}
	b := &Builder{Name: name}
	for _, one := range s.Nodes {
		n, err := one.node()
		if err == nil {
			err = b.Add(n)
		}
		if err != nil {
			return nil, fmt.Errorf("builder %q: %q: %w", name, f.file(name), err)
		}
	}
	return b, nil
}

func (s savedNode) node() (n Node, err error) {
	n = Node{Name: s.Name, Endpoint: s.Endpoint, TLS: TLS{CACert: s.CACert, Cert: s.Cert, Key: s.Key, ServerName: s.ServerName}}
	if s.Wait != "" {
		if n.Wait, err = time.ParseDuration(s.Wait); err != nil {
			return n, err
		}
	}
	n.Platforms, err = platform.ParseAll(s.Platforms)
	return n, err
}

// Put writes a builder.
func (f Folder) Put(b *Builder) error {
	if err := CheckName(b.Name); err != nil {
		return err
	}
	if b.Name == Default {
		return fmt.Errorf("%q is the builder that is this process", Default)
	}
	var s saved
	for _, n := range b.Nodes {
		one := savedNode{
			Name: n.Name, Endpoint: n.Endpoint, Platforms: names(n.Platforms),
			CACert: n.TLS.CACert, Cert: n.TLS.Cert, Key: n.TLS.Key, ServerName: n.TLS.ServerName,
		}
		if n.Wait > 0 {
			one.Wait = n.Wait.String()
		}
		s.Nodes = append(s.Nodes, one)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return f.write(b.Name+fileSuffix, append(text, '\n'))
}

// Remove forgets a builder; the daemons of its nodes are left alone.
func (f Folder) Remove(name string) error {
	if CheckName(name) != nil {
		return &NoBuilderError{name}
	}
	err := os.Remove(f.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return &NoBuilderError{name}
	}
	if err != nil {
		return err
	}
	if current, err := f.Current(); err == nil && current == name {
		return f.Use(Default)
	}
	return nil
}

// Current is the name of the builder in use: [Default] unless another was chosen and is
// still there.
func (f Folder) Current() (string, error) {
	text, err := readBounded(filepath.Join(string(f), currentName))
	if errors.Is(err, fs.ErrNotExist) {
		return Default, nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(text))
	if CheckName(name) == nil && f.has(name) {
		return name, nil
	}
	return Default, nil // it was removed by hand
}

func (f Folder) has(name string) bool {
	_, err := os.Stat(f.file(name))
	return err == nil
}

// Use chooses the builder for builds that name none. The error is a [*NoBuilderError] if
// there is none of that name.
func (f Folder) Use(name string) error {
	if name == Default {
		if err := os.Remove(filepath.Join(string(f), currentName)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := f.Get(name); err != nil {
		return err
	}
	return f.write(currentName, []byte(name+"\n"))
}

func (f Folder) file(name string) string { return filepath.Join(string(f), name+fileSuffix) }

// write replaces a file in one step.
func (f Folder) write(name string, text []byte) (err error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(string(f), ".new-") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	if _, err := temp.Write(text); err != nil {
		return errors.Join(err, temp.Close())
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), filepath.Join(string(f), name))
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%q is larger than %d bytes", path, maxFile)
	}
	return text, err
}
