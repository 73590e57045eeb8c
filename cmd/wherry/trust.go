package main

import "github.com/urfave/cli/v2"

// contentTrust is a flag that scripts still pass. docker has removed what it was
// about, and takes it as well.
const contentTrust = "disable-content-trust"

func contentTrustFlag() cli.Flag {
	return &cli.BoolFlag{Name: contentTrust, Usage: "Skip image verification (deprecated)", Value: true, Hidden: true}
}

func (e *env) sayContentTrust(c *cli.Context) {
	if c.IsSet(contentTrust) {
		e.say("Flag --%s has no effect: docker content trust is not supported", contentTrust)
	}
}
