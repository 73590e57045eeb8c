package build

import (
	"encoding/json"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func TestChange(t *testing.T) {
	for _, c := range []struct {
		os, changes, want string // want: the config as JSON, or the error behind "!"
	}{
		{"", "", `{}`},
		{"", "CMD echo hello $NAME", `{"Cmd":["/bin/sh","-c","echo hello $NAME"]}`},
		{"", `cmd ["a", "b"]`, `{"Cmd":["a","b"]}`},
		{"windows", "CMD dir", `{"Cmd":["cmd","/S","/C","dir"]}`},
		{"", "SHELL [\"/bin/bash\",\"-ec\"]\nENTRYPOINT exec top", `{"Entrypoint":["/bin/bash","-ec","exec top"],"Shell":["/bin/bash","-ec"]}`},
		{"", "CMD [\"x\"]\nENTRYPOINT [\"y\"]", `{"Entrypoint":["y"],"Cmd":["x"]}`},
		{"", "ENV A=1 B=$A\nENV A=2 C=${A}${D:-3}\nENV D \"a b\"", `{"Env":["A=2","B=","C=13","D=a b"]}`},
		{"windows", "ENV Path=x\nENV PATH=y", `{"Env":["PATH=y"]}`},
		{"", "ENV P=8000\nEXPOSE 80 $P-8001/UDP", `{"ExposedPorts":{"80/tcp":{},"8000/udp":{},"8001/udp":{}},"Env":["P=8000"]}`},
		{"", "LABEL a=b c='d e'", `{"Labels":{"a":"b","c":"d e"}}`},
		{"", "WORKDIR /a\nWORKDIR b/../c", `{"WorkingDir":"/a/c"}`},
		{"", "VOLUME /data /more\nVOLUME [\"/data\"]", `{"Volumes":{"/data":{},"/more":{}}}`},
		{"", "USER me:us", `{"User":"me:us"}`},
		{"", "STOPSIGNAL SIGRTMIN+3", `{"StopSignal":"SIGRTMIN+3"}`},
		{"", "ONBUILD RUN make $X\nONBUILD COPY . /", `{"OnBuild":["RUN make $X","COPY . /"]}`},
		{
			"", `HEALTHCHECK --interval=5s --start-interval=1s --retries=3 CMD curl -f localhost`,
			`{"Healthcheck":{"Test":["CMD-SHELL","curl -f localhost"],"Interval":5000000000,"StartInterval":1000000000,"Retries":3}}`,
		},
		{"", "HEALTHCHECK NONE", `{"Healthcheck":{"Test":["NONE"]}}`},
		{"", "RUN make", `!invalid change "RUN make": only CMD`},
		{"", "FROM scratch", `!"FROM scratch"`},
		{"", "MAINTAINER me", `!"MAINTAINER me": only CMD`},
		{"", "USER a\nFROBNICATE x\nUSER b", `!"FROBNICATE x"`},
		{"", "   ", `!invalid change`},
		{"", "ENV", `!invalid change "ENV"`},
		{"", "ENV A", `!"ENV A"`},
		{"", "ENV A=${", `!"ENV A=${"`},
		{"", "EXPOSE 80/icmp", `!no port "80/icmp"`},
		{"", "EXPOSE 90-80", `!no port`},
		{"", "EXPOSE 65536", `!no port`},
		{"", "EXPOSE 127.0.0.1:80:80", `!no port`},
		{"", "STOPSIGNAL SIGNOTHING", `!no signal "SIGNOTHING"`},
		{"", "STOPSIGNAL 65", `!no signal`},
		{"", `VOLUME [""]`, `!empty`},
		{"", "ONBUILD FROM x", `!ONBUILD`},
		{"", "SHELL bash", `!"SHELL bash"`},
	} {
		var config dockerspec.DockerOCIImageConfig
		var changes []string
		if c.changes != "" {
			changes = strings.Split(c.changes, "\n")
		}
		err := Change(&config, c.os, changes)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v, want %s", c.changes, err, want)
			}
			continue
		}
		got, jerr := json.Marshal(config)
		if err != nil || jerr != nil || string(got) != c.want {
			t.Errorf("%q: %s, %v, %v, want %s", c.changes, got, err, jerr, c.want)
		}
	}
}

// Whatever somebody types: no panic, no endless list, and an error that names it. The
// package's TestMain starts itself anew, which go test -fuzz does not survive: to
// fuzz, copy the files change*.go to a folder of their own.
func FuzzChange(f *testing.F) {
	for _, s := range []string{
		"CMD a", `ENTRYPOINT ["a"]`, "ENV A=1 B=${A:-x}", "EXPOSE 1-65535/udp", "HEALTHCHECK --retries=1 CMD a", "LABEL a=b", "ONBUILD RUN a",
		"SHELL [\"a\"]", "STOPSIGNAL 9", "USER a", "VOLUME [\"/a\"]", "WORKDIR ../a", "# escape=`\nENV A=`\n b", "ENV A=<<E\nb\nE", "ENV A=${A//a/b}",
	} {
		f.Add(s, "linux")
	}
	f.Add("WORKDIR C:\\x", "windows")
	f.Fuzz(func(t *testing.T, change, os string) {
		var config dockerspec.DockerOCIImageConfig
		err := Change(&config, os, []string{change})
		if err != nil && !strings.HasPrefix(err.Error(), "invalid change ") {
			t.Errorf("%q: %q", change, err)
		}
		if _, err := json.Marshal(config); err != nil {
			t.Errorf("%q: %v", change, err)
		}
	})
}
