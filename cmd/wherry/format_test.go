package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestListingFormats(t *testing.T) {
	rows := []imageRow{
		{Repository: "alpine", Tag: "3.20", Digest: "sha256:aa", ID: "0123456789ab", CreatedSince: "2 days ago", Size: "1.08GB"},
		{Repository: none, Tag: none, Digest: "sha256:bb", ID: "ba9876543210", Size: "7.8MB"},
	}
	for _, c := range []struct {
		name string
		o    imagesOptions
		want string
	}{
		{"table", imagesOptions{}, "" +
			"REPOSITORY   TAG       IMAGE ID       CREATED      SIZE\n" +
			"alpine       3.20      0123456789ab   2 days ago   1.08GB\n" +
			"<none>       <none>    ba9876543210   N/A          7.8MB\n"},
		{"digests", imagesOptions{Digests: true, Format: "table"}, "" +
			"REPOSITORY   TAG       DIGEST      IMAGE ID       CREATED      SIZE\n" +
			"alpine       3.20      sha256:aa   0123456789ab   2 days ago   1.08GB\n" +
			"<none>       <none>    sha256:bb   ba9876543210   N/A          7.8MB\n"},
		{"quiet", imagesOptions{Quiet: true}, "0123456789ab\nba9876543210\n"},
		{"template", imagesOptions{Format: "{{.Repository}}:{{.Tag}}"}, "alpine:3.20\n<none>:<none>\n"},
		{"a template beats quiet", imagesOptions{Format: `{{upper .Tag}}\t{{len .ID}}`, Quiet: true}, "3.20\t12\n<NONE>\t12\n"},
		{"table template", imagesOptions{Format: `table {{.ID}}\t{{lower .Size}}`}, "" +
			"IMAGE ID       SIZE\n0123456789ab   1.08gb\nba9876543210   7.8mb\n"},
		{"functions", imagesOptions{Format: `{{json .Tag}} {{join (split .Tag ".") "-"}} {{title .Repository}} {{truncate .ID 4}}{{pad .Tag 1 1}}|{{println}}`}, "" +
			"\"3.20\" 3-20 Alpine 0123 3.20 |\n\n\"<none>\" <none> <None> ba98 <none> |\n\n"},
		{"json", imagesOptions{Format: "json"}, "" +
			`{"Containers":"","CreatedAt":"","CreatedSince":"2 days ago","Digest":"sha256:aa","ID":"0123456789ab","Repository":"alpine","SharedSize":"","Size":"1.08GB","Tag":"3.20","UniqueSize":""}` + "\n" +
			`{"Containers":"","CreatedAt":"","CreatedSince":"","Digest":"sha256:bb","ID":"ba9876543210","Repository":"<none>","SharedSize":"","Size":"7.8MB","Tag":"<none>","UniqueSize":""}` + "\n"},
	} {
		var b bytes.Buffer
		if err := writeList(&b, imagesListing(c.o), rows); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if b.String() != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, b.String(), c.want)
		}
	}
}

func TestHistoryRows(t *testing.T) {
	made := v1.Time{Time: time.Now().Add(-49 * time.Hour)}
	steps := []v1.History{
		{Created: made, CreatedBy: "ADD rootfs.tar / # buildkit"},
		{Created: made, CreatedBy: "ENV A=1", EmptyLayer: true},
		{CreatedBy: "RUN <<EOF\n\tapt-get update && apt-get install --yes everything\nEOF", Comment: "buildkit"},
	}
	layers := []v1.Descriptor{{Size: 7795000}, {Size: 12}}
	var b bytes.Buffer
	if err := writeList(&b, historyListing(historyOptions{}), historyRows(steps, layers, historyOptions{})); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"IMAGE       CREATED      CREATED BY                                      SIZE      COMMENT\n" +
		"<missing>   N/A          RUN <<EOF  apt-get update && apt-get install…   12B       buildkit\n" +
		"<missing>   2 days ago   ENV A=1                                         0B        \n" +
		"<missing>   2 days ago   ADD rootfs.tar / # buildkit                     7.79MB    \n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}

	o := historyOptions{Exact: true, NoTrunc: true, Format: "{{.CreatedSince}}|{{.Size}}|{{.CreatedBy}}"}
	rows := historyRows(steps, layers, o)
	if got, want := rows[2].CreatedSince, made.Local().Format(time.RFC3339); got != want {
		t.Errorf("--human=false: created %q, want %q", got, want)
	}
	if rows[2].Size != "7795000" || strings.Contains(rows[0].CreatedBy, "…") {
		t.Errorf("--human=false --no-trunc: %+v", rows)
	}
}

func TestInspectTemplatesKnowBothSpellings(t *testing.T) {
	one := &inspection{ID: "sha256:aa", Os: "linux", RepoTags: []string{"alpine:3.20"}, Size: 12}
	for format, want := range map[string]string{
		"{{.ID}} {{.Id}}": "sha256:aa sha256:aa\n",
		"{{.Id}}":         "sha256:aa\n",
		"{{index .RepoTags 0}} {{.Os}} {{.Size}}":      "alpine:3.20 linux 12\n",
		"{{json .RepoTags}}":                           "[\"alpine:3.20\"]\n",
		"{{range .RootFS.Layers}}{{println .}}{{end}}": "\n",
	} {
		var b bytes.Buffer
		err := writeInspection(&b, format, one)
		if format == "{{.ID}} {{.Id}}" {
			if err == nil {
				t.Errorf("%s: the two spellings in one template: %q", format, b.String())
			}
			continue
		}
		if err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v; want %q", format, b.String(), err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for full, want := range map[string][3]string{
		"docker.io/library/alpine:3.20":           {"alpine", "3.20", ""},
		"docker.io/library/a/b:1":                 {"library/a/b", "1", ""},
		"docker.io/grafana/loki:latest":           {"grafana/loki", "latest", ""},
		"localhost:5000/x:1":                      {"localhost:5000/x", "1", ""},
		"localhost:5000/x@sha256:00":              {"localhost:5000/x", "", "sha256:00"},
		"docker.io/library/alpine:3.20@sha256:00": {"alpine", "3.20", "sha256:00"},
		"": {"", "", ""},
	} {
		repo, tag, digest := splitName(full)
		if got := [3]string{repo, tag, digest}; got != want {
			t.Errorf("%q: got %q, want %q", full, got, want)
		}
	}
	if got := shortID("sha256:0123456789abcdef"); got != "0123456789ab" {
		t.Errorf("short ID %q", got)
	}
}

func TestMatchReference(t *testing.T) {
	const name = "docker.io/library/alpine:3.20"
	for pattern, want := range map[string]bool{
		"alpine": true, "alpine:3.20": true, "alpine:3.21": false, "alp*": true, "alpine:3*": true, "*:3.20": true,
		"docker.io/library/alpine": true, "docker.io/library/alpine:3.20": true, "library/alpine": true,
		"docker.io/library/alpine:3.21": false,
		"alp":                           false, "debian": false, "*/alpine": false,
	} {
		if got, err := matchReference(pattern, name); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", pattern, got, err, want)
		}
	}
}
