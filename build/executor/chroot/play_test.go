package chroot

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// play is what this binary does as a program in a step. It returns the exit code.
func play(args []string) int {
	switch args[0] {
	case "attack":
		return attack(args[1:])
	case "capabilities":
		had, err := step.Permitted()
		fmt.Fprintf(stdout(), "%x %v", had, err)
		return 0
	case "dial":
		c, err := new(net.Dialer).DialContext(context.Background(), "unix", args[1])
		if err != nil {
			fmt.Fprintln(stdout(), err)
			return 1
		}
		if _, err := io.Copy(stdout(), c); err != nil {
			return 1
		}
		return 0
	}
	fmt.Fprintln(os.Stderr, "play what?", args) //nolint:forbidigo // a program's own output
	return 2
}
