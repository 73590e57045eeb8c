//go:build linux

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
)

// FactsID marks what is no progress but carries [Facts] in JSON: it begins the ID of a
// status, whose name they are, or is the URL of a warning, whose text they are. Whoever
// displays a build takes these out of the stream.
const FactsID = "wherry.facts "

// Facts are what the engine knows of one step beyond its progress. They come in several
// pieces. Of values that a step is given there are digests only.
type Facts struct {
	Name string `json:",omitempty"` // of the step, as the progress has it
	// Parts are what the step itself consists of, by names for people ("command",
	// "variable PATH"), without what it builds on. nil in the other pieces.
	Parts map[string]string `json:",omitempty"`
	// Paths are the files that a COPY or ADD takes, as patterns.
	Paths []string `json:",omitempty"`
	// NoCache says that the build's user wanted the step anew.
	NoCache bool `json:",omitempty"`
	// Folder is the name of the folder of the caller's that a step brings; "" if it is none.
	Folder string `json:",omitempty"`
	// Record describes in the build cache what a RUN has made.
	Record string `json:",omitempty"`
	// Needs is what the step has to be allowed: "network.host", "security.insecure".
	Needs []string `json:",omitempty"`
	// Devices are those that the step requires.
	Devices []string `json:",omitempty"`
	// Contents are checksums of the files that the step reads, by the number of the input.
	Contents map[int]string `json:",omitempty"`
	// Changed are the files of Folder that were copied or removed, because they are other
	// than they were: the first maxChanged of Count.
	Changed []string `json:",omitempty"`
	Count   int      `json:",omitempty"`
	// Results are the IDs in the build cache of what the step has made.
	Results []string `json:",omitempty"`
}

// maxChanged bounds how many files that changed are named.
const maxChanged = 1000

// ParseFacts reads what [FactsID] marks.
func ParseFacts(text string) (Facts, error) {
	var f Facts
	err := json.Unmarshal([]byte(text), &f)
	return f, err
}

func (f Facts) text() string {
	text, err := json.Marshal(f)
	if err != nil { // strings and numbers only
		return "{}"
	}
	return string(text)
}

// tellingFrontend tells the facts of each step that its frontend asks for.
type tellingFrontend struct{ frontend.Frontend }

func (f tellingFrontend) Solve(ctx context.Context, llb frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	return f.Frontend.Solve(ctx, tellingBridge{llb}, exec, opt, inputs, sid, sm)
}

type tellingBridge struct{ frontend.FrontendLLBBridge }

func (b tellingBridge) Solve(ctx context.Context, req frontend.SolveRequest, sid string) (*frontend.Result, error) {
	if req.Definition != nil {
		for _, raw := range req.Definition.Def {
			step := digest.FromBytes(raw)
			facts, ok := factsOf(raw, req.Definition.Metadata[step.String()])
			if !ok {
				continue
			}
			if err := b.Warn(ctx, step, facts.text(), frontend.WarnOpts{URL: FactsID}); err != nil {
				return nil, err
			}
		}
	}
	return b.FrontendLLBBridge.Solve(ctx, req, sid)
}

// factsOf takes a step apart. There are none of the last vertex, which only points at
// the result.
func factsOf(raw []byte, meta *pb.OpMetadata) (Facts, bool) {
	var op pb.Op
	if err := op.UnmarshalVT(raw); err != nil || op.Op == nil {
		return Facts{}, false // an error that the solver will find
	}
	f := Facts{
		Name: meta.GetDescription()["llb.customname"], NoCache: meta.GetIgnoreCache(),
		Parts: map[string]string{"platform": digestOf(op.Platform.GetOS(), op.Platform.GetArchitecture(), op.Platform.GetVariant())},
	}
	switch x := op.Op.(type) {
	case *pb.Op_Exec:
		execParts(f.Parts, x.Exec)
		f.Record = "mount / from exec " + strings.Join(x.Exec.Meta.Args, " ")
		f.addNeeds(x.Exec)
	case *pb.Op_File:
		f.Parts["instruction"] = hashOf(x.File)
		for _, a := range x.File.Actions {
			if c := a.GetCopy(); c != nil {
				f.Paths = append(f.Paths, copied(c)...)
			}
		}
	case *pb.Op_Source:
		f.Parts["source"] = digestOf(x.Source.Identifier)
		if name, ok := strings.CutPrefix(x.Source.Identifier, "local://"); ok {
			f.Folder = name
		}
	default:
		f.Parts["definition"] = digest.FromBytes(raw).Encoded()
	}
	return f, true
}

func (f *Facts) addNeeds(x *pb.ExecOp) {
	if x.Network == pb.NetMode_HOST {
		f.Needs = append(f.Needs, entitlements.EntitlementNetworkHost.String())
	}
	if x.Security == pb.SecurityMode_INSECURE {
		f.Needs = append(f.Needs, entitlements.EntitlementSecurityInsecure.String())
	}
	for _, d := range x.CdiDevices {
		if !d.Optional {
			f.Devices = append(f.Devices, d.Name)
		}
	}
}

func execParts(parts map[string]string, x *pb.ExecOp) {
	parts["command"] = digestOf(x.Meta.Args...)
	for _, v := range x.Meta.Env {
		name, value, _ := strings.Cut(v, "=")
		parts["variable "+name] = digestOf(value)
	}
	parts["working folder"] = digestOf(x.Meta.Cwd)
	parts["user"] = digestOf(x.Meta.User)
	parts["network"] = digestOf(x.Network.String())
	parts["security"] = digestOf(x.Security.String())
	var mounts []string
	for _, m := range x.Mounts {
		mounts = append(mounts, hashOf(m))
	}
	parts["mounts"] = digestOf(mounts...)
}

func digestOf(values ...string) string {
	return digest.FromString(fmt.Sprintf("%q", values)).Encoded()[:16]
}

func hashOf(m proto.Message) string {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // then it could not have been read
		return ""
	}
	return digestOf(string(text))
}

// copied are the patterns of what one copy takes.
func copied(c *pb.FileActionCopy) []string {
	if len(c.IncludePatterns) == 0 {
		return []string{c.Src}
	}
	paths := make([]string, len(c.IncludePatterns))
	for i, p := range c.IncludePatterns {
		paths[i] = strings.TrimSuffix(c.Src, "/") + "/" + p
	}
	return paths
}
