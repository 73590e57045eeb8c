package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// pod is what the files say of pods, and no more: a field that nothing is made of here is an error.
// https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
type pod struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       podSpec
}

type podSpec struct {
	HostUsers                    *bool       `yaml:"hostUsers"`
	RestartPolicy                string      `yaml:"restartPolicy"`
	AutomountServiceAccountToken *bool       `yaml:"automountServiceAccountToken"`
	SecurityContext              podSecurity `yaml:"securityContext"`
	Containers                   []podContainer
	Volumes                      []podVolume
}

// podSecurity is of a pod or of a container, which comes first.
type podSecurity struct {
	RunAsNonRoot             *bool          `yaml:"runAsNonRoot"`
	RunAsUser                *uint32        `yaml:"runAsUser"`
	RunAsGroup               *uint32        `yaml:"runAsGroup"`
	FSGroup                  *int           `yaml:"fsGroup"`
	SeccompProfile           seccompProfile `yaml:"seccompProfile"`
	AllowPrivilegeEscalation *bool          `yaml:"allowPrivilegeEscalation"`
	Capabilities             struct{ Add, Drop []string }
}

type seccompProfile struct {
	Type             string
	LocalhostProfile string `yaml:"localhostProfile"`
}

type podContainer struct {
	Name, Image     string
	Args            []string
	Stdin           bool
	StdinOnce       bool `yaml:"stdinOnce"`
	Env             []struct{ Name, Value string }
	SecurityContext podSecurity `yaml:"securityContext"`
	VolumeMounts    []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type podVolume struct {
	Name   string
	Secret *struct {
		SecretName string `yaml:"secretName"`
		Items      []struct{ Key, Path string }
	}
	PersistentVolumeClaim *struct {
		ClaimName string `yaml:"claimName"`
	} `yaml:"persistentVolumeClaim"`
}

// security is what holds for a container: its own settings, else those of the pod.
func (p *pod) security(c *podContainer) podSecurity {
	s, whole := c.SecurityContext, p.Spec.SecurityContext
	if s.RunAsNonRoot == nil {
		s.RunAsNonRoot = whole.RunAsNonRoot
	}
	if s.RunAsUser == nil {
		s.RunAsUser = whole.RunAsUser
	}
	if s.RunAsGroup == nil {
		s.RunAsGroup = whole.RunAsGroup
	}
	if s.SeccompProfile.Type == "" {
		s.SeccompProfile = whole.SeccompProfile
	}
	return s
}

// standard is the strictest of the Pod Security standards that a pod keeps to, as far as files here go: they have no
// field that a standard speaks of but these.
// https://kubernetes.io/docs/concepts/security/pod-security-standards/
func (p *pod) standard() string {
	s := p.security(&p.Spec.Containers[0])
	for _, name := range s.Capabilities.Add {
		if !slices.Contains(dockerCapabilities, "CAP_"+name) || name == "NET_RAW" {
			return "privileged"
		}
	}
	switch {
	case s.SeccompProfile.Type == "Unconfined":
		return "privileged"
	case s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation,
		s.RunAsNonRoot == nil || !*s.RunAsNonRoot,
		s.RunAsUser != nil && *s.RunAsUser == 0,
		!slices.Contains(s.Capabilities.Drop, "ALL"), len(s.Capabilities.Add) > 0,
		s.SeccompProfile.Type == "":
		return "baseline"
	}
	return "restricted"
}

// pod runs the one container of a pod.
func (r *recipe) pod() (recipeRun, error) {
	file, err := r.path()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var p pod
	if err := yaml.Load(text, &p, yaml.WithKnownFields()); err != nil {
		return nil, err
	}
	standard := "baseline"
	if r.rung == "f" {
		standard = "restricted"
	}
	switch got := p.standard(); {
	case p.APIVersion != "v1" || p.Kind != "Pod" || len(p.Spec.Containers) != 1 || p.Spec.RestartPolicy != "Never":
		return nil, errors.New("what kind of thing is that?")
	case got != standard || !strings.Contains(string(text), fmt.Sprintf("%q", standard)) && p.Spec.HostUsers == nil:
		return nil, fmt.Errorf("the pod is %s", got)
	}
	// What the comments promise of another profile.
	if err := r.otherProfile(p); err != nil {
		return nil, err
	}
	return func(ctx context.Context, args ...string) (string, error) { return r.runPod(ctx, &p, args) }, nil
}

// otherProfile tries what the files say in their comments: that with another seccomp profile the rung is d.
func (r *recipe) otherProfile(p pod) error {
	p.Spec.Containers = slices.Clone(p.Spec.Containers)
	profile := &p.Spec.Containers[0].SecurityContext.SeccompProfile
	switch {
	case r.rung == "f":
		*profile = seccompProfile{Type: "Localhost", LocalhostProfile: "podman.json"}
	case p.Spec.HostUsers != nil:
		*profile = seccompProfile{Type: "Unconfined"}
	default:
		return nil
	}
	if r.rung == "f" && p.standard() != "restricted" {
		return errors.New("with a profile of the node's it is not restricted")
	}
	if err := os.MkdirAll(r.project(), 0o755); err != nil {
		return err
	}
	out, err := r.runPod(context.Background(), &p, []string{"doctor", "--format", "{{.Build.Rung}}", "registry.corp"})
	if err != nil || out != "d\n" {
		return fmt.Errorf("with the profile %q it is %s: %w", profile.Type, out, err)
	}
	return nil
}

// runPod runs it as a node does, with the project on stdin; or with other arguments than its own.
func (r *recipe) runPod(ctx context.Context, p *pod, args []string) (string, error) {
	c := &p.Spec.Containers[0]
	o, err := r.podOutside(ctx, p, c)
	if err != nil {
		return "", err
	}
	config, err := r.config(ctx, c.Image)
	if err != nil {
		return "", err
	}
	if args == nil {
		args = c.Args
	}
	o.args, o.env, o.cwd = slices.Concat(config.Entrypoint, args), config.Env, "/"
	o.env = append(o.env, "KUBERNETES_SERVICE_HOST=10.96.0.1") // as all pods have it
	for _, e := range c.Env {
		o.env = append(o.env, e.Name+"="+e.Value)
	}
	if err := r.podVolumes(p, c, o); err != nil {
		return "", err
	}
	if p.Spec.HostUsers != nil && !*p.Spec.HostUsers {
		if err := o.inUserNamespace(); err != nil {
			return "", err
		}
	}
	if c.Stdin && c.StdinOnce {
		tar, err := r.command(ctx, r.project(), nil, "tar", "-cz", ".")
		if err != nil {
			return "", err
		}
		o.stdin = []byte(tar)
	}
	return o.run(ctx, r)
}

// podOutside is the container of a pod: who it is, what it may do.
func (r *recipe) podOutside(ctx context.Context, p *pod, c *podContainer) (*outside, error) {
	s := p.security(c)
	who := account{name: "pod"}
	if s.RunAsUser != nil {
		who.uid = *s.RunAsUser
	}
	if s.RunAsGroup != nil {
		who.gid = *s.RunAsGroup
	}
	caps := slices.Clone(dockerCapabilities)
	if slices.Contains(s.Capabilities.Drop, "ALL") {
		caps = nil
	}
	for _, name := range s.Capabilities.Add {
		caps = append(caps, "CAP_"+name)
	}
	image := map[string]string{"registry.corp/wherry": "root", "registry.corp/wherry:debug": "debug"}[c.Image]
	o, err := r.newOutside(ctx, image, who, caps)
	if err != nil {
		return nil, err
	}
	o.spec.Process.NoNewPrivileges = s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation
	switch s.SeccompProfile.Type {
	case "RuntimeDefault":
	case "Localhost":
		return o, o.setSeccomp(strings.TrimSuffix(s.SeccompProfile.LocalhostProfile, ".json"))
	default: // also where nothing is said, unless the node has other settings
		return o, o.setSeccomp("unconfined")
	}
	return o, nil
}

// podVolumes puts the volumes of a pod where the container has them. Those that are claimed stay from pod to pod.
func (r *recipe) podVolumes(p *pod, c *podContainer, o *outside) error {
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(p.Spec.Volumes, func(v podVolume) bool { return v.Name == m.Name })
		if i < 0 {
			return fmt.Errorf("there is no volume %q", m.Name)
		}
		v := p.Spec.Volumes[i]
		dir := filepath.Join(r.dir, "volume-"+v.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if v.Secret != nil {
			for _, item := range v.Secret.Items {
				if item.Key != ".dockerconfigjson" || v.PersistentVolumeClaim != nil {
					return fmt.Errorf("what is %q?", item.Key)
				}
				if err := os.WriteFile(filepath.Join(dir, item.Path), []byte(auths()), 0o640); err != nil {
					return err
				}
			}
		}
		if err := r.giveToGroup(p, dir); err != nil {
			return err
		}
		o.mounts[m.MountPath] = dir
	}
	return nil
}

// giveToGroup does what a node does with volumes where a pod has fsGroup.
func (r *recipe) giveToGroup(p *pod, dir string) error {
	group := p.Spec.SecurityContext.FSGroup
	if group == nil {
		return nil
	}
	err := errors.Join(os.Chown(dir, -1, *group), os.Chmod(dir, 0o775|os.ModeSetgid))
	files, errGlob := filepath.Glob(filepath.Join(dir, "*.json"))
	for _, file := range files {
		err = errors.Join(err, os.Chown(file, -1, *group))
	}
	return errors.Join(err, errGlob)
}
