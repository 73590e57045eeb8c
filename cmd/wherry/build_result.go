//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/build"
)

// ask prints what the frontend says to a question, "check", "outline" or "targets",
// perhaps with ",format=json" behind it.
func (b *builder) ask(ctx context.Context, call string) error {
	question, options, _ := strings.Cut(call, ",")
	if question == "lint" { // docker's older word
		question = build.AskCheck
	}
	asJSON := false
	switch options {
	case "", "format=text":
	case "format=json":
		asJSON = true
	default:
		return &usageError{command: program + " build", err: fmt.Errorf("invalid --call %q: want %s[,format=json]", call, question)}
	}
	answer, err := b.answer(ctx, question)
	if err != nil {
		b.sayBuildFailure(err)
		return err
	}
	switch {
	case asJSON:
		fmt.Fprintln(&b.Out, strings.TrimSpace(answer.JSON))
	case question == build.AskCheck && !answer.Failed:
		fmt.Fprintln(&b.Out, "Check complete, no warnings found.")
	default:
		fmt.Fprintln(&b.Out, strings.Trim(answer.Text, "\n"))
	}
	if answer.Failed {
		if err := b.flush(); err != nil { // what was found is the answer, though the exit code is 1
			return err
		}
		return exitWith(exitFailed)
	}
	return nil
}

// pushResult pushes what was built of r under its names; without a tag it is called by its
// digest.
func pushResult(ctx context.Context, e *env, r build.Request, digest v1.Hash, quiet bool) error {
	for _, name := range r.Names {
		o := pushOptions{Ref: name.String(), Quiet: quiet, Insecure: slices.ContainsFunc(r.Outputs, build.Output.Insecure)}
		if reference.IsNameOnly(name) {
			o.Ref, o.ByDigest = name.Name()+"@"+digest.String(), true
		}
		if err := runPush(ctx, e, o); err != nil {
			return err
		}
	}
	return nil
}

// answer asks here, or on a node of a builder.
func (b *builder) answer(ctx context.Context, question string) (*build.Answer, error) {
	if b.farm == nil {
		return build.Ask(ctx, b.store, b.state, b.request, question)
	}
	f, err := b.env.farm(b.farm, "quiet")
	if err != nil {
		return nil, err
	}
	return build.AskFarm(ctx, b.store, b.state, f, b.request, question)
}

// writeResultFiles writes --iidfile and --metadata-file.
func writeResultFiles(o buildOptions, res *build.Result) error {
	if o.IIDFile != "" && res.Digest != (v1.Hash{}) {
		err := writeFile(o.IIDFile, func(w io.Writer) error {
			_, err := io.WriteString(w, res.Digest.String())
			return err
		})
		if err != nil {
			return fmt.Errorf("iidfile: %w", err)
		}
	}
	if o.MetadataFile == "" {
		return nil
	}
	return writeMetadata(o.MetadataFile, readableMetadata(res.Metadata))
}

func writeMetadata(path string, metadata map[string]any) error {
	text, err := json.MarshalIndent(metadata, "", "  ")
	if err != nil {
		return err
	}
	err = writeFile(path, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
	if err != nil {
		return fmt.Errorf("metadata file: %w", err)
	}
	return nil
}

// readableMetadata is what exporters tell, JSON being JSON and not base64 of it.
func readableMetadata(raw map[string]string) map[string]any {
	readable := make(map[string]any, len(raw))
	for key, value := range raw {
		readable[key] = value
		decoded, err := base64.StdEncoding.DecodeString(value)
		if err == nil && json.Valid(decoded) && len(decoded) > 0 && (decoded[0] == '{' || decoded[0] == '[') {
			readable[key] = json.RawMessage(decoded)
		}
	}
	return readable
}

// sayBuildFailure shows what goes before the one line of the error: the step's output,
// unless the display has shown it, and the lines of the Dockerfile.
func (b *builder) sayBuildFailure(err error) {
	failed, ok := errors.AsType[*build.Error](err)
	if !ok {
		return
	}
	if !failed.Shown {
		for _, line := range failed.Output {
			b.say("%s", printable(line))
		}
	}
	if failed.Excerpt != "" {
		b.say("%s", strings.TrimRight(string(harmless([]byte(failed.Excerpt))), "\n"))
	}
}
