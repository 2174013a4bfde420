# The gateway's image: docker build -t faas/gateway .
ARG GO_IMAGE=golang:1.26-alpine

# Compiles on the builder's own platform, whatever the image is for. Builders
# other than BuildKit set neither BUILDPLATFORM nor TARGET*: then both are
# what the machine is, or what --build-arg says.
FROM --platform=${BUILDPLATFORM:-linux} ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG TARGETVARIANT
ARG VERSION=dev
# Of the source: git is not in the build context.
ARG REVISION=
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} GOARM=${TARGETVARIANT#v} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION} -X main.revision=${REVISION}" -o /gateway .

FROM scratch
# Amazon's certificate chains are checked against these roots.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /gateway /gateway
ENV provider=swarm
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/gateway", "-run-healthcheck"]
ENTRYPOINT ["/gateway"]
ARG VERSION=dev
ARG REVISION=
LABEL org.opencontainers.image.title="faas gateway" \
      org.opencontainers.image.description="Functions as a service for Docker Swarm" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
