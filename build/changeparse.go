package build

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// parsePorts reads what EXPOSE takes, PORT[-PORT][/PROTOCOL], and returns the
// ports one by one, as "80/tcp".
func parsePorts(spec string) ([]string, error) {
	bad := fmt.Errorf("no port %q: want PORT[-PORT][/PROTOCOL]", spec)
	numbers, protocol, ok := strings.Cut(spec, "/")
	if !ok {
		protocol = "tcp"
	}
	protocol = strings.ToLower(protocol)
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return nil, bad
	}
	lower, upper, ok := strings.Cut(numbers, "-")
	if !ok {
		upper = lower
	}
	first, err1 := strconv.ParseUint(lower, 10, 16)
	last, err2 := strconv.ParseUint(upper, 10, 16)
	if err1 != nil || err2 != nil || last < first {
		return nil, bad
	}
	var ports []string
	for n := first; n <= last; n++ {
		ports = append(ports, fmt.Sprintf("%d/%s", n, protocol))
	}
	return ports, nil
}

// signals are Linux's (signal(7)); an image may be made where there are others.
const signals = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS " +
	"TERM TRAP TSTP TTIN TTOU UNUSED URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"

// lastSignal is SIGRTMAX.
const lastSignal = 64

// isSignal takes a number, or a name with or without SIG, as "SIGRTMIN+3".
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n > 0 && n <= lastSignal
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for base, sign := range map[string]string{"RTMIN": "+", "RTMAX": "-"} {
		if offset, ok := strings.CutPrefix(name, base+sign); ok {
			n, err := strconv.ParseUint(offset, 10, 8)
			return err == nil && n < lastSignal/2
		}
	}
	return slices.Contains(strings.Fields(signals), name)
}
