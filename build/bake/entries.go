package bake

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Entry is one value of an attribute that flags write as CSV, as output: its fields by name.
type Entry map[string]string

// String is the entry as a flag takes it, type first.
func (e Entry) String() string {
	var fields []string
	if kind, ok := e["type"]; ok {
		fields = append(fields, "type="+kind)
	}
	for _, k := range slices.Sorted(maps.Keys(e)) {
		if k != "type" {
			fields = append(fields, k+"="+e[k])
		}
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // to memory
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// MarshalJSON writes an object of texts, the ID first; whether an attestation is disabled
// is a boolean, and the paths of an SSH key are a list.
func (e Entry) MarshalJSON() ([]byte, error) {
	keys := slices.Sorted(maps.Keys(e))
	if i := slices.Index(keys, "id"); i > 0 {
		keys = slices.Insert(slices.Delete(keys, i, i+1), 0, "id")
	}
	fields := make([]string, len(keys))
	for i, k := range keys {
		var v any = e[k]
		switch k {
		case "disabled":
			v = e[k] == "true"
		case "paths":
			v = strings.Split(e[k], ",")
		}
		key, bad := json.Marshal(k)
		text, err := json.Marshal(v)
		if err := errors.Join(bad, err); err != nil {
			return nil, err
		}
		fields[i] = string(key) + ":" + string(text)
	}
	return []byte("{" + strings.Join(fields, ",") + "}"), nil
}

// form is how the entries of an attribute are written.
type form interface {
	// read reads an entry as text. One text may stand for several.
	read(text string) ([]Entry, error)
	// check refuses an entry that lacks something.
	check(e Entry) error
	// identity is equal for entries of which only the last counts.
	identity(e Entry) string
}

// List is the value of an attribute whose entries may be texts, as on the command line,
// or objects.
type List[F form] []Entry

// parse reads entries as flags have them. Empty texts are left out.
func (List[F]) parse(texts []string) (List[F], error) {
	var f F
	list := List[F]{}
	for _, text := range texts {
		if text == "" {
			continue
		}
		entries, err := f.read(text)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if err := f.check(e); err != nil {
				return nil, err
			}
		}
		list = append(list, entries...)
	}
	return list, nil
}

// Strings are the entries as flags take them.
func (l List[F]) Strings() []string {
	var out []string
	for _, e := range l {
		out = append(out, e.String())
	}
	return out
}

// tidy keeps the last of the entries with one identity, where the first stood.
func (l List[F]) tidy() List[F] {
	var f F
	var out List[F]
	for _, e := range l {
		same := func(other Entry) bool { return f.identity(other) == f.identity(e) }
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i] = e
		} else {
			out = append(out, e)
		}
	}
	return out
}

// FromCtyValue reads the value of an attribute in HCL.
func (l *List[F]) FromCtyValue(in cty.Value, p cty.Path) error {
	if !in.Type().IsTupleType() && !in.Type().IsListType() {
		return p.NewErrorf("%s", convert.MismatchMessage(in.Type(), cty.List(cty.Map(cty.String))))
	}
	*l = List[F]{}
	for it := in.ElementIterator(); it.Next(); {
		_, v := it.Element()
		if !v.IsKnown() || v.IsNull() {
			continue
		}
		entries, err := l.element(v)
		if err != nil {
			return p.NewError(err)
		}
		*l = append(*l, entries...)
	}
	return nil
}

func (l *List[F]) element(v cty.Value) (List[F], error) {
	if v.Type() == cty.String {
		return l.parse([]string{v.AsString()})
	}
	if !v.Type().IsObjectType() && !v.Type().IsMapType() {
		return nil, errors.New("an entry is a text or an object")
	}
	e := Entry{}
	for it := v.ElementIterator(); it.Next(); {
		key, field := it.Element()
		text, err := fieldText(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key.AsString(), err)
		}
		if text != "" {
			e[key.AsString()] = text
		}
	}
	var f F
	return List[F]{e}, f.check(e)
}

// fieldText is the text of a field; a list's is joined by commas.
func fieldText(v cty.Value) (string, error) {
	if v.IsNull() || !v.IsKnown() {
		return "", nil
	}
	if v.Type().IsTupleType() || v.Type().IsListType() {
		var parts []string
		for it := v.ElementIterator(); it.Next(); {
			_, one := it.Element()
			text, err := fieldText(one)
			if err != nil {
				return "", err
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, ","), nil
	}
	text, err := convert.Convert(v, cty.String)
	if err != nil {
		return "", err
	}
	return text.AsString(), nil
}

// ToCtyValue is what expressions elsewhere see of the attribute.
func (l List[F]) ToCtyValue() cty.Value {
	if len(l) == 0 {
		return cty.ListValEmpty(cty.Map(cty.String))
	}
	vals := make([]cty.Value, len(l))
	for i, e := range l {
		fields := make(map[string]cty.Value, len(e))
		for k, v := range e {
			fields[k] = cty.StringVal(v)
		}
		vals[i] = cty.MapVal(fields)
	}
	return cty.ListVal(vals)
}

// readFields reads KEY=VALUE,...
func readFields(text string) (Entry, error) {
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return nil, fmt.Errorf("invalid value %q: %w", text, err)
	}
	e := Entry{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("invalid value %q: %q is not KEY=VALUE", text, f)
		}
		e[strings.ToLower(strings.TrimSpace(k))] = v
	}
	return e, nil
}

func needsType(e Entry) error {
	if e["type"] == "" {
		return fmt.Errorf("invalid value %q: type is missing", e)
	}
	return nil
}

type outputForm struct{}

func (outputForm) read(text string) ([]Entry, error) {
	switch {
	case text == "-":
		return []Entry{{"type": "tar", "dest": "-"}}, nil
	case !strings.Contains(text, "="):
		return []Entry{{"type": "local", "dest": text}}, nil
	}
	e, err := readFields(text)
	return []Entry{e}, err
}

func (outputForm) check(e Entry) error     { return needsType(e) }
func (outputForm) identity(e Entry) string { return e.String() }

type cacheForm struct{}

// A text without "=" is a list of images.
func (cacheForm) read(text string) ([]Entry, error) {
	if strings.Contains(text, "=") {
		e, err := readFields(text)
		return []Entry{e}, err
	}
	names, err := csvvalue.Fields(text, nil)
	if err != nil {
		return nil, fmt.Errorf("invalid value %q: %w", text, err)
	}
	var list []Entry
	for _, n := range names {
		list = append(list, Entry{"type": "registry", "ref": n})
	}
	return list, nil
}

func (cacheForm) check(e Entry) error     { return needsType(e) }
func (cacheForm) identity(e Entry) string { return e.String() }

type attestForm struct{}

func (attestForm) read(text string) ([]Entry, error) {
	e, err := readFields(text)
	return []Entry{e}, err
}

func (attestForm) check(e Entry) error {
	if disabled, ok := e["disabled"]; ok {
		is, err := strconv.ParseBool(disabled)
		if err != nil {
			return fmt.Errorf("invalid value %q: disabled is true or false", e)
		}
		if delete(e, "disabled"); is {
			e["disabled"] = "true"
		}
	}
	return needsType(e)
}

func (attestForm) identity(e Entry) string { return e["type"] }

type secretForm struct{}

func (secretForm) read(text string) ([]Entry, error) {
	e, err := readFields(text)
	if err != nil {
		return nil, err
	}
	if src, ok := e["source"]; ok {
		e["src"] = src
		delete(e, "source")
	}
	if e["type"] == "env" && e["env"] == "" {
		e["env"] = e["src"]
		delete(e, "src")
	}
	delete(e, "type")
	return []Entry{e}, nil
}

func (secretForm) check(e Entry) error {
	for k := range e {
		if !slices.Contains([]string{"id", "src", "env"}, k) {
			return fmt.Errorf("invalid secret %q: unknown key %q (there is id, src, env)", e, k)
		}
	}
	return nil
}

func (secretForm) identity(e Entry) string { return e["id"] }

type sshForm struct{}

// read reads ID or ID=PATH,PATH.
func (sshForm) read(text string) ([]Entry, error) {
	id, paths, _ := strings.Cut(text, "=")
	if id == "" {
		return nil, fmt.Errorf("invalid ssh %q: want ID[=PATH,...]", text)
	}
	e := Entry{"id": id}
	if paths != "" {
		e["paths"] = paths
	}
	return []Entry{e}, nil
}

func (sshForm) check(e Entry) error {
	for k := range e {
		if k != "id" && k != "paths" {
			return fmt.Errorf("invalid ssh %q: unknown key %q (there is id, paths)", e, k)
		}
	}
	return nil
}

func (sshForm) identity(e Entry) string { return e["id"] }
