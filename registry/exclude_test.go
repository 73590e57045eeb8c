package registry

import (
	"fmt"
	"strings"
	"testing"
)

// What is kept from a host is kept from it alone, and a hosts.toml that says so
// in any other way than the right one is refused.
func TestExclusions(t *testing.T) {
	const hosts = "server = \"https://official.corp/x\"\n[host.\"http://private.corp:5000\"]\n[host.\"https://mirror.corp\"]\n"
	table := func(entries ...string) string {
		return hosts + "[x-wherry.exclude]\n" + strings.Join(entries, "\n") + "\n"
	}
	for _, test := range []struct {
		toml, host, repo string
		want             bool
	}{
		{hosts, "official.corp", "team/app", true},
		{table(`"official.corp" = ["team/*"]`), "official.corp", "team/app", false},
		{table(`"https://official.corp/x" = ["team/*"]`), "official.corp", "team/app/deep", false},
		{table(`"https://official.corp/other" = ["team/*"]`), "official.corp", "team/app", false},
		{table(`"official.corp" = ["team/*"]`), "official.corp", "team", true},
		{table(`"official.corp" = ["team/*"]`), "official.corp", "teams/app", true},
		{table(`"official.corp" = ["team/*"]`), "private.corp:5000", "team/app", true},
		{table(`"official.corp" = ["team/*"]`), "mirror.corp", "team/app", true},
		{table(`"official.corp" = ["/team/"]`), "official.corp", "team/app", false},
		{table(`"official.corp" = ["team"]`), "official.corp", "team", false},
		{table(`"official.corp" = ["team"]`), "official.corp", "team/app", false},
		{table(`"official.corp" = ["**/secret"]`), "official.corp", "a/b/secret", false},
		{table(`"official.corp" = ["**", "!open/*"]`), "official.corp", "open/app", true},
		{table(`"official.corp" = ["**", "!open/*"]`), "official.corp", "closed/app", false},
		{table(`"official.corp" = ["a"]`, `"http://private.corp:5000" = ["b"]`), "private.corp:5000", "b", false},
		{"[x-wherry.exclude]\n\"team.corp\" = [\"x\"]\n", "team.corp", "x", false},
	} {
		name := "official.corp"
		if strings.HasPrefix(test.toml, "[") {
			name = "team.corp"
		}
		c := newClient(Config{HostsDirs: []string{certsDir(t, name, map[string]string{"hosts.toml": test.toml})}})
		all, err := c.allEndpoints(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", test.toml, err)
		}
		for _, e := range all {
			if e.host == test.host && e.mayServe(test.repo) != test.want {
				t.Errorf("%s: %s may serve %s: %v", test.toml, e.host, test.repo, !test.want)
			}
		}
	}
	for _, bad := range []string{
		table(`"elsewhere.corp" = ["a"]`), table(`"official.corp" = []`), table(`"official.corp" = "a"`), table(`"official.corp" = [1]`),
		table(`"official.corp" = [""]`), table(`"official.corp" = ["["]`), table(`"official.corp" = ["!"]`), table(`"" = ["a"]`),
		hosts + "[x-wherry.exlude]\n\"official.corp\" = [\"a\"]\n", hosts + "[x-wherry-exclude]\n\"official.corp\" = [\"a\"]\n",
		"x-wherry = [\"a\"]\n" + hosts, "[x-wherry]\nexclude = [\"a\"]\n" + hosts,
	} {
		c := newClient(Config{HostsDirs: []string{certsDir(t, "official.corp", map[string]string{"hosts.toml": bad})}})
		if all, err := c.allEndpoints(t.Context(), "official.corp"); err == nil {
			t.Errorf("%s: is %v", bad, fmt.Sprint(all))
		}
	}
}
