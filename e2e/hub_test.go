package e2e

import (
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wherry-oci/wherry/e2e/testreg"
)

// cmdHub: hub NAME [search=FILE] [catalog=A,B,...] [tags=A,B,...] [page=N] [endless] starts a stand-in for a registry's search and
// catalog; its address is in $NAME. FILE is what it answers to every search.
func cmdHub(ts *testscript.TestScript, _ bool, args []string) {
	var o testreg.HubOptions
	for _, arg := range args[1:] {
		switch key, value, _ := strings.Cut(arg, "="); key {
		case "search":
			o.Search = []byte(ts.ReadFile(value))
		case "catalog":
			o.Catalog = strings.Split(value, ",")
		case "tags":
			o.Tags = strings.Split(value, ",")
		case "page":
			o.Page = atoi(ts, value)
		case "endless":
			o.Endless = true
		default:
			ts.Fatalf("what is %q?", arg)
		}
	}
	h := testreg.StartHub(o)
	ts.Defer(h.Close)
	storyOf(ts).hubs[args[0]] = h
	ts.Setenv(args[0], h.Addr())
}

// cmdAsked: asked NAME prints what a hub was asked, a line each.
func cmdAsked(ts *testscript.TestScript, _ bool, args []string) {
	out := ts.Stdout()
	for _, line := range storyOf(ts).hubs[args[0]].Requests() {
		fmt.Fprintln(out, line)
	}
}
