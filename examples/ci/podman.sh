# Podman, as root or as an ordinary user: an ordinary container, whose seccomp profile lets steps run in user namespaces. Who may
# push is kept by podman login --authfile ~/.config/containers/auth.json registry.corp; the volume keeps images and the cache of
# builds. label=disable is for SELinux.
wherry() {
	podman run --rm -i -v wherry:/var/lib/wherry -v "$PWD:$PWD" -w "$PWD" --security-opt label=disable \
		-v "$HOME/.config/containers/auth.json:/run/auth.json:ro" -e REGISTRY_AUTH_FILE=/run/auth.json registry.corp/wherry "$@"
}
wherry build --push -t registry.corp/team/app:1 .
