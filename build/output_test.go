package build_test

import (
	"maps"
	"testing"

	"github.com/wherry-oci/wherry/build"
)

func TestParseOutput(t *testing.T) {
	for in, want := range map[string]build.Output{
		"dir":                       {Type: "local", Dest: "dir"},
		"-":                         {Type: "tar", Dest: "-"},
		"type=image":                {Type: "image"},
		"type=cacheonly":            {Type: "cacheonly"},
		"type=docker":               {Type: "docker"},
		"type=oci,dest=a b.tar":     {Type: "oci", Dest: "a b.tar"},
		`type=tar,"dest=a,b.tar"`:   {Type: "tar", Dest: "a,b.tar"},
		"TYPE=LOCAL,dest=X,mode=m=": {Type: "local", Dest: "X", Attrs: map[string]string{"mode": "m="}},
	} {
		got, err := build.ParseOutput(in)
		if err != nil || got.Type != want.Type || got.Dest != want.Dest || !maps.Equal(got.Attrs, want.Attrs) {
			t.Errorf("%q: got %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "type=", "type=what", "type=oci", "type=local", "type=local,dest=-", "type=image,dest=x", "dest=x", "type=tar,dest", `type=tar,"dest=x`} {
		if got, err := build.ParseOutput(in); err == nil {
			t.Errorf("%q was taken for %+v", in, got)
		}
	}
}

func FuzzParseOutput(f *testing.F) {
	for _, seed := range []string{"-", "dir", "type=oci,dest=x", `"type=tar","dest=a,b"`, "type=image,name=a,b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := build.ParseOutput(s)
		if err == nil && o.Type == "" {
			t.Errorf("%q: an output without a type", s)
		}
	})
}
