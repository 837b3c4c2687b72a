# syntax=docker/dockerfile:1

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=devel
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=1 go build -trimpath -ldflags "-X main.version=${VERSION}" -o /signet ./cmd/signet

FROM debian:bookworm-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates softhsm2 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 65532 signet \
 && useradd --system --uid 65532 --gid signet --home-dir /var/lib/signet --shell /usr/sbin/nologin signet \
 && install -d -o signet -g signet -m 0700 /var/lib/signet
COPY --from=build /signet /usr/local/bin/signet
COPY LICENSE /usr/share/doc/signet/LICENSE
ENV SIGNET_DATA_DIR=/var/lib/signet \
    SIGNET_LISTEN=0.0.0.0:8000 \
    SIGNET_LOG_FORMAT=json
USER 65532:65532
VOLUME /var/lib/signet
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["signet", "health"]
ENTRYPOINT ["signet"]
CMD ["serve"]
