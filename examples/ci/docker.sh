# Docker: an ordinary container, neither privileged nor with the engine's socket. Steps run by chroot. Who may push is in
# docker's own configuration (docker login); the volume keeps images and the cache of builds.
wherry() {
	docker run --rm -i -v wherry:/var/lib/wherry -v "$PWD:$PWD" -w "$PWD" \
		-v "$HOME/.docker/config.json:/run/docker/config.json:ro" -e DOCKER_CONFIG=/run/docker registry.corp/wherry "$@"
}
wherry build --push -t registry.corp/team/app:1 .
