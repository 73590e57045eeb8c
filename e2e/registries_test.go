package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mannered is a registry as there are some: what testreg puts in front of one that has no peculiarities.
type mannered struct {
	name   string
	front  string // further words of "registry"
	before string // more of the script, before it starts
	again  bool   // a second push has to send all
	hosts  string // hosts.toml
	logins bool
	delete string // how a deletion ends, where it fails: the error
}

// manneredRegistries are the rows of the story. Where a product is known to behave so, it is named.
func manneredRegistries() []mannered {
	return []mannered{
		{name: "plain"},
		{name: "no HEAD", front: "manner=nohead", again: true},
		{name: "HEAD finds nothing", front: "manner=notfoundhead", again: true},
		{name: "no digests", front: "manner=nodigest"},
		{name: "ignores ranges", front: "manner=norange cut=1"},
		{name: "refuses ranges", front: "manner=range416 cut=1"},
		{name: "uploads in one request", front: "manner=nopatch"},
		{name: "uploads with PATCH only", front: "manner=noput"},
		{name: "uploads in chunks only", front: "manner=onlychunks"},
		{name: "bodies of 100 kB", front: "manner=most=100000"},
		{name: "bodies of 100 kB, chunks of 70", front: "manner=most=100000 manner=least=70000"},
		{name: "bodies with a length", front: "manner=length"},
		{name: "ignores mounts", front: "manner=nomount"},
		{name: "denies mounts", front: "manner=mount403"},
		{name: "finds no mounts", front: "manner=mount404"},
		{name: "allows no mounts", front: "manner=mount405"},
		{name: "relative upload addresses", front: "manner=relative"},
		{name: "upload addresses without the port", front: "manner=portless"},
		{name: "upload addresses outside of the API", front: "manner=moved"},
		{name: "always status 200", front: "manner=status200"},
		{name: "rate limit", front: "manner=busy"},
		{name: "bad gateway", front: "manner=gateway"},
		{name: "blobs break off", front: "cut=2"},
		{name: "uploads break off", front: "manner=cutting"},
		{name: "token ends in an upload", front: "token=me:secret manner=expiring", logins: true},
		{name: "tokens of a second", front: "token=me:secret life=1s", logins: true},
		{name: "basic", front: "basic=me:secret", logins: true},
		{name: "no referrers", front: "manner=noreferrers"},
		{name: "no deletion", front: "manner=nodelete", delete: "does not let images be deleted"},
		{
			name: "path prefix", front: "manner=prefix",
			hosts: "server = \"http://$REG/team/prefix/v2\"\n[host.\"http://$REG/team/prefix/v2\"]\n  override_path = true\n",
		},
		{name: "upload addresses outside of the API, relative", front: "manner=relative manner=moved"},
		{name: "blobs on another host", front: "redirect=http://$BACK token=me:secret", logins: true},
		{
			name:   "mirror that has nothing",
			before: "registry EMPTY\n",
			hosts:  "server = \"http://$REG\"\n[host.\"http://$EMPTY\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		},
		{
			name:  "mirror that is down",
			hosts: "server = \"http://$REG\"\n[host.\"http://127.0.0.1:1\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		},
		{
			name: "credential helper", front: "token=me:secret",
			before: "chmod 755 docker-credential-story\nenv PATH=$WORK:$PATH\nenv DOCKER_CONFIG=$WORK/docker\n",
		},
		{name: "own authority", front: "tls"},
		{name: "own authority, client certificate, token", front: "tls client token=me:secret", logins: true},
	}
}

// TestRegistries does one job at each of these, in front of the registry in this process and of Debian's.
func TestRegistries(t *testing.T) {
	job, err := os.ReadFile(filepath.Join("testdata", "registries", "job.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var files []string
	for _, backend := range []string{"registry", "debian-registry"} {
		for _, m := range manneredRegistries() {
			file := filepath.Join(dir, strings.NewReplacer(" ", "_", ",", "").Replace(backend+"_"+m.name)+".txtar")
			if err := os.WriteFile(file, []byte(m.script(string(job), backend)), 0o644); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
	}
	runScripts(t, files)
}

// script is the job at m.
func (m mannered) script(job, backend string) string {
	if backend == "debian-registry" {
		job = strings.Replace(job, "BACKEND BACK", "need docker-registry\nBACKEND BACK", 1)
	}
	var login, deletion string
	if m.logins {
		for _, name := range []string{"$REG", "$FRESH"} {
			login += "stdin password\nexec wherry login -u me --password-stdin " + name + "\n"
		}
	}
	deletion = "exec wherry delete $REG/team/app:1\nstdout '^Deleted: '$REG'/team/app@'$ID'$'\n! published BACK team/app@$ID\n"
	if m.delete != "" {
		deletion = "refused wherry delete $REG/team/app:1\nstderr '" + m.delete + "'\npublished BACK team/app:1\n"
	}
	again := "! stderr ': Pushed'\n"
	if m.again {
		again = "stderr ': Pushed'\n"
	}
	return strings.NewReplacer(
		"BACKEND", backend, "FRONT", m.front, "BEFORE\n", m.before, "LOGIN\n", login, "AGAIN\n", again, "DELETE\n", deletion, "HOSTS\n", m.hosts,
	).Replace(job)
}
