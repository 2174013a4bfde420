# Images, release files and the stack. Included by the Makefile.

VERSION       ?= $(shell git describe --tags --always --dirty)
REVISION      ?= $(shell git rev-parse HEAD 2>/dev/null)
PLATFORMS     ?= linux/amd64 linux/arm64 linux/arm/v7
FAAS_REGISTRY ?= faas
FAAS_TAG      ?= latest
DIST          ?= dist

# Image = folder in sample-functions, in lower case with hyphens.
SAMPLES := catservice hostname-intent nodeinfo primes sentiment shortlink \
           thumbnail webhook wordcount
sample_dir = sample-functions/$(if $(filter hostname-intent,$1),HostnameIntent,$1)

# The others of our images, and the folders of their Dockerfiles.
PROGRAMS       := gateway fwatchdog faas-async
dockerfile_dir  = $(if $(filter fwatchdog,$1),watchdog/)$(if $(filter faas-async,$1),async/)

image      = $(FAAS_REGISTRY)/$1:$(FAAS_TAG)

# Of linux/arm/v7: arm, v7, arm-v7.
arch    = $(word 2,$(subst /, ,$1))
variant = $(word 3,$(subst /, ,$1))
dashed  = $(subst /,-,$(patsubst linux/%,%,$1))

# More arguments for each docker build, such as --build-arg GO_IMAGE=...
BUILD_ARGS ?=

.PHONY: images images-here push push-all deploy dist dist-check

## images: gateway, fwatchdog and faas-async for each of PLATFORMS, samples for this machine
images: images-here
	@set -e; $(foreach p,$(PLATFORMS),$(foreach i,$(PROGRAMS),$(call cross,$i,$p)))

# The compiler runs on this machine whatever the platform. Only BuildKit writes
# the platform into the image, which Swarm goes by. An attestation beside the
# image would make the name a list already, which no other list can hold.
define cross
DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --platform $2 -t $(call image,$1)-$(call dashed,$2) -f $(dockerfile_dir)Dockerfile \
  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .;
endef

## images-here: every image, for this machine alone
images-here:
	docker build -t $(call image,gateway) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .
	docker build -t $(call image,fwatchdog) -f watchdog/Dockerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .
	docker build -t $(call image,faas-async) -f async/Dockerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .
	@set -e; $(foreach s,$(SAMPLES),docker build -t $(call image,$s) \
	  --build-arg WATCHDOG_IMAGE=$(call image,fwatchdog) $(BUILD_ARGS) $(call sample_dir,$s);)

## push: what images-here built, to FAAS_REGISTRY
push:
	@set -e; $(foreach i,$(PROGRAMS) $(SAMPLES),docker push $(call image,$i);)

## push-all: what images built: gateway, fwatchdog and faas-async under one name for all of PLATFORMS
push-all:
	@set -e; $(foreach i,$(SAMPLES),docker push $(call image,$i);) \
	$(foreach i,$(PROGRAMS),$(call joined,$(call image,$i),$(foreach p,$(PLATFORMS),$(call image,$i)-$(call dashed,$p))))

define joined
$(foreach i,$2,docker push $i;) docker manifest create --amend $1 $2; docker manifest push --purge $1;
endef

# Swarm cannot change a config: what is mounted gets a name by its content.
CONFIGS := prometheus.yml $(filter-out %.test.yml,$(wildcard prometheus/*.yml)) $(shell find grafana -name '*.yml' -o -name '*.json')

# The control plane's password is random, and shown here and nowhere else.
define credentials
docker secret inspect basic-auth-user >/dev/null 2>&1 || { \
  printf admin | docker secret create basic-auth-user - >/dev/null && echo "control plane: user admin"; }; \
docker secret inspect basic-auth-password >/dev/null 2>&1 || { \
  password=$$(head -c 18 /dev/urandom | base64 | tr +/ -_) && \
  printf %s "$$password" | docker secret create basic-auth-password - >/dev/null && \
  echo "control plane: password $$password (shown this once)"; }
endef

## deploy: the stack with its control plane, and with changed rules and dashboards; DEPLOY_FLAGS, such as a further -c FILE, go to docker
deploy:
	@set -e; $(credentials)
	FAAS_REGISTRY=$(FAAS_REGISTRY) FAAS_TAG=$(FAAS_TAG) FAAS_CONFIG=$$(cat $(sort $(CONFIGS)) | sha256sum | cut -c1-12) \
	  docker stack deploy -c stack.yml -c stack.api.yml $(DEPLOY_FLAGS) faas

## dist: static gateway, fwatchdog and faas-async for each of PLATFORMS, and their sums
dist:
	rm -rf $(DIST)
	mkdir -p $(DIST)
	@set -e; $(foreach p,$(PLATFORMS),$(call compile,gateway,.,$p) $(call compile,fwatchdog,./watchdog/fwatchdog,$p) $(call compile,faas-async,async,$p))
	cd $(DIST) && sha256sum gateway-* fwatchdog-* faas-async-* >SHA256SUMS
	@cat $(DIST)/SHA256SUMS

# Nothing of the machine, the path or the day gets in; the revision does. The
# watchdog speaks HTTP/1.1 alone, and is a tenth smaller without HTTP/2. -C, as
# faas-async is a module of its own.
define compile
CGO_ENABLED=0 GOOS=linux GOARCH=$(call arch,$3) GOAMD64=v1 GOARM=$(patsubst v%,%,$(call variant,$3)) GOFLAGS= \
  go build -C $2 -trimpath $(if $(filter fwatchdog,$1),-tags nethttpomithttp2) -ldflags '-s -w -buildid= -X main.version=$(VERSION) -X main.revision=$(REVISION)' -o $(abspath $(DIST))/$1-linux-$(call dashed,$3) .;
endef

## dist-check: dist, and again in another folder with an empty cache; fails if a byte differs
dist-check: dist
	@set -e; tmp=$$(mktemp -d); trap 'chmod -R u+w "$$tmp"; rm -rf "$$tmp"' EXIT; \
	mkdir $$tmp/copy; tar -c --exclude=./dist . | tar -x -C $$tmp/copy; \
	GOCACHE=$$tmp/cache $(MAKE) -C $$tmp/copy --no-print-directory dist \
	  DIST=$$tmp/dist VERSION='$(VERSION)' REVISION='$(REVISION)' PLATFORMS='$(PLATFORMS)' >/dev/null; \
	diff -r $(DIST) $$tmp/dist; echo "dist: two builds are identical"
