//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/wherry-oci/wherry/build"
)

// readSteps reads what surrounds the steps.
func readSteps(e *env, o buildOptions, req *build.Request) (err error) {
	req.Steps = build.Steps{Ulimits: o.Ulimits, CgroupParent: o.CgroupParent}
	if req.EmulatorDir, err = e.emulatorDir(o.EmulatorDir); err != nil {
		return err
	}
	switch o.Network {
	case "", "default":
	case "host", "none":
		req.Steps.Network = o.Network
	default:
		return buildUsage("invalid --network %q: there is default, host and none", o.Network)
	}
	if o.ShmSize != "" {
		if req.Steps.ShmSize, err = units.RAMInBytes(o.ShmSize); err != nil || req.Steps.ShmSize < 0 {
			return buildUsage("invalid --shm-size %q: want a size, as 128m", o.ShmSize)
		}
	}
	for _, u := range o.Ulimits {
		if _, err := units.ParseUlimit(u); err != nil {
			return buildUsage("invalid --ulimit %q: %w", u, err)
		}
	}
	req.Confine = o.Confine
	if req.Steps.Hosts, err = extraHosts(o.AddHosts); err != nil {
		return err
	}
	if req.Steps.Resources, err = resources(o.Resources); err != nil {
		return err
	}
	if req.Secrets, err = buildSecrets(o.Secrets); err != nil {
		return err
	}
	for _, s := range o.SSH {
		id, paths, given := strings.Cut(s, "=")
		agent := build.SSH{ID: id}
		if given {
			agent.Paths = strings.Split(paths, ",")
		}
		req.SSH = append(req.SSH, agent)
	}
	return nil
}

// confinement reads what security modules are to take steps for, in the words of docker run and of buildah. docker's
// builder knows none of them, so that what else scripts say is no error, but idle.
func confinement(options []string) (c build.Confine, idle []string) {
	for _, option := range options {
		switch strings.Replace(option, ":", "=", 1) {
		case "label=disable":
			c.OwnLabel = true
		case "apparmor=unconfined":
			c.OwnProfile = true
		default:
			idle = append(idle, "security-opt "+option)
		}
	}
	return c, idle
}

// extraHosts reads NAME:IP or NAME=IP. host-gateway is this machine: steps share its network.
func extraHosts(list []string) ([]string, error) {
	var hosts []string
	for _, s := range list {
		name, ip, ok := strings.Cut(s, "=")
		if !ok {
			name, ip, ok = strings.Cut(s, ":")
		}
		if !ok || name == "" {
			return nil, buildUsage("invalid --add-host %q: want NAME:IP", s)
		}
		for one := range strings.SplitSeq(ip, ",") {
			if one == "host-gateway" {
				one = "127.0.0.1"
			}
			one = strings.TrimSuffix(strings.TrimPrefix(one, "["), "]")
			if net.ParseIP(one) == nil {
				return nil, buildUsage("invalid --add-host %q: %q is no IP address", s, one)
			}
			hosts = append(hosts, name+"="+one)
		}
	}
	return hosts, nil
}

// resources reads KEY=VALUE with the names that docker run has for limits.
func resources(list []string) (map[string]string, error) {
	limits := map[string]string{}
	for _, s := range list {
		key, value, _ := strings.Cut(s, "=")
		name, known := map[string]string{
			"memory": "memory", "memory-swap": "memswap", "cpu-shares": "cpushares", "cpu-period": "cpuperiod",
			"cpu-quota": "cpuquota", "cpuset-cpus": "cpusetcpus", "cpuset-mems": "cpusetmems",
		}[key]
		if !known || value == "" {
			return nil, buildUsage("invalid --resource %q: want KEY=VALUE with one of memory, memory-swap, "+
				"cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems", s)
		}
		if strings.HasPrefix(key, "memory") && value != "-1" {
			bytes, err := units.RAMInBytes(value)
			if err != nil {
				return nil, buildUsage("invalid --resource %q: want a size, as 2g", s)
			}
			value = strconv.FormatInt(bytes, 10)
		}
		limits[name] = value
	}
	return limits, nil
}

func buildSecrets(list []string) ([]build.Secret, error) {
	var secrets []build.Secret
	for _, s := range list {
		fields, err := csvvalue.Fields(s, nil)
		if err != nil {
			return nil, fmt.Errorf("invalid --secret: %w", err)
		}
		var secret build.Secret
		for _, f := range fields {
			k, v, _ := strings.Cut(f, "=")
			switch strings.ToLower(k) {
			case "id":
				secret.ID = v
			case "src", "source":
				secret.File = v
			case "env":
				secret.Env = v
			case "type":
				if v != "file" && v != "env" {
					return nil, fmt.Errorf("invalid --secret: no type %q (there is file, env)", v)
				}
			default:
				return nil, fmt.Errorf("invalid --secret: unknown key %q (there is id, src, env, type)", k)
			}
		}
		if secret.ID == "" {
			return nil, errors.New("invalid --secret: id is missing")
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}
