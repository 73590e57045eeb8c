# wherry's own image, built by wherry:
#
#	wherry build -t wherry .                        the program alone
#	wherry build -t wherry:debug --target debug .   with a shell, as CI systems want one
#	wherry build --platform linux/amd64,linux/arm64 -t registry.corp/wherry --push .
#
# Nothing is emulated: the compiler runs on this machine, for any other. GOPROXY
# and GOFLAGS (such as -buildvcs=false, in a work tree of git) are handed on as
# build arguments.
ARG GO_VERSION=1.26.8
ARG BUSYBOX_VERSION=1.37-musl

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS compile
ARG TARGETOS
ARG TARGETARCH
ARG GOPROXY
ARG GOFLAGS
WORKDIR /src
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -tags=urfave_cli_no_docs -ldflags='-s -w' -o /out/wherry ./cmd/wherry

# All that the image has beside the program. Any user may write to /tmp and to
# the home, also one that has no name; root's store is in /var/lib/wherry.
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS files
RUN mkdir -p /files/etc/ssl/certs /files/tmp /files/home/wherry /files/var/lib/wherry \
 && cp /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs/ \
 && echo 'root:x:0:0:root:/home/wherry:/bin/sh' > /files/etc/passwd \
 && echo 'wherry:x:1000:1000:wherry:/home/wherry:/bin/sh' >> /files/etc/passwd \
 && printf 'root:x:0:\nwherry:x:1000:\n' > /files/etc/group \
 && chmod 1777 /files/tmp /files/home/wherry

FROM busybox:${BUSYBOX_VERSION} AS debug
COPY --from=files /files /
COPY --from=compile /out/wherry /usr/local/bin/wherry
ENV HOME=/home/wherry PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
CMD ["sh"]

FROM scratch AS wherry
COPY --from=files /files /
COPY --from=compile /out/wherry /usr/local/bin/wherry
ENV HOME=/home/wherry PATH=/usr/local/bin
ENTRYPOINT ["wherry"]
