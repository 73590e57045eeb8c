# "make help" explains each target. All of them need Go and nothing else; "make
# test" also brings Debian packages where it may.

export CGO_ENABLED := 0
PREFIX ?= /usr/local
# The tag leaves out what urfave/cli writes manuals with: wherry has its own.
BUILD  := go build -trimpath -tags=urfave_cli_no_docs -ldflags='-s -w'
TOOL   := go tool -modfile=.ci/tools.mod
.DEFAULT_GOAL := build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## bin/wherry, one static binary
	$(BUILD) -o bin/wherry ./cmd/wherry

demo: build ## the whole main job on examples/: build for two platforms, push, pull, save, load
	go run ./e2e/demo bin/wherry

test: ## all tests; Debian packages they lack are installed by apt where that is possible
	@.ci/packages
	@failed=0; set -x; \
	go test -timeout 20m $$(go list ./... | grep -v '/e2e$$') || failed=1; \
	go -C e2e test -timeout 40m || failed=1; \
	set +x; exit $$failed

lint: ## the linters, at the versions pinned in .ci/tools.mod
	$(TOOL) golangci-lint run ./...
	@unformatted=$$($(TOOL) gofumpt -l .) && test -z "$$unformatted" || { echo "not gofumpt-ed: $$unformatted"; exit 1; }

fuzz: ## every fuzz target for FUZZTIME (30s each)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-30s} -fuzzminimizetime 2x $$package || exit 1; \
		done; done

bench: build ## speed beside the peers that are installed: medians and ratios
	go run ./e2e/bench bin/wherry

bench-build: build ## a large build beside buildkitd and buildah, an emulated one, and one with fewer privileges: minutes, 40 GB of TMPDIR
	go run ./e2e/bench -only reference,emulated,rungs -runs 3 bin/wherry

cross: ## dist/: the binaries for other systems
	GOOS=linux GOARCH=amd64 $(BUILD) -o dist/wherry-linux-amd64 ./cmd/wherry
	GOOS=linux GOARCH=arm64 $(BUILD) -o dist/wherry-linux-arm64 ./cmd/wherry
	GOOS=darwin GOARCH=arm64 $(BUILD) -o dist/wherry-darwin-arm64 ./cmd/wherry
	GOOS=windows GOARCH=amd64 $(BUILD) -o dist/wherry-windows-amd64.exe ./cmd/wherry

install: build ## program, manual pages and completions below PREFIX (/usr/local)
	install -D -m 755 bin/wherry $(DESTDIR)$(PREFIX)/bin/wherry
	bin/wherry man $(DESTDIR)$(PREFIX)/share/man/man1
	bin/wherry completion bash | install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/share/bash-completion/completions/wherry
	bin/wherry completion zsh | install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_wherry
	bin/wherry completion fish | install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/wherry.fish

.PHONY: help build demo test lint fuzz bench bench-build cross install
