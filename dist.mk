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
image      = $(FAAS_REGISTRY)/$1:$(FAAS_TAG)

# Of linux/arm/v7: arm, v7, arm-v7.
arch    = $(word 2,$(subst /, ,$1))
variant = $(word 3,$(subst /, ,$1))
dashed  = $(subst /,-,$(patsubst linux/%,%,$1))

# More arguments for each docker build, such as --build-arg GO_IMAGE=...
BUILD_ARGS ?=

.PHONY: images images-here push push-all deploy dist dist-check

## images: gateway and fwatchdog for each of PLATFORMS, samples for this machine
images: images-here
	@set -e; $(foreach p,$(PLATFORMS),$(foreach i,gateway fwatchdog,$(call cross,$i,$p)))

# The compiler runs on this machine whatever the platform. Only BuildKit writes
# the platform into the image, which Swarm goes by. An attestation beside the
# image would make the name a list already, which no other list can hold.
define cross
DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --platform $2 -t $(call image,$1)-$(call dashed,$2) -f $(if $(filter fwatchdog,$1),watchdog/)Dockerfile \
  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .;
endef

## images-here: every image, for this machine alone
images-here:
	docker build -t $(call image,gateway) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .
	docker build -t $(call image,fwatchdog) -f watchdog/Dockerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .
	@set -e; $(foreach s,$(SAMPLES),docker build -t $(call image,$s) \
	  --build-arg WATCHDOG_IMAGE=$(call image,fwatchdog) $(BUILD_ARGS) $(call sample_dir,$s);)

## push: what images-here built, to FAAS_REGISTRY
push:
	@set -e; $(foreach i,gateway fwatchdog $(SAMPLES),docker push $(call image,$i);)

## push-all: what images built: gateway and fwatchdog under one name for all of PLATFORMS
push-all:
	@set -e; $(foreach i,$(SAMPLES),docker push $(call image,$i);) \
	$(foreach i,gateway fwatchdog,$(call joined,$(call image,$i),$(foreach p,$(PLATFORMS),$(call image,$i)-$(call dashed,$p))))

define joined
$(foreach i,$2,docker push $i;) docker manifest create --amend $1 $2; docker manifest push --purge $1;
endef

# Swarm cannot change a config: what is mounted gets a name by its content.
CONFIGS := prometheus.yml $(filter-out %.test.yml,$(wildcard prometheus/*.yml)) $(shell find grafana -name '*.yml' -o -name '*.json')

## deploy: the stack, with changed rules and dashboards; DEPLOY_FLAGS, such as a second -c FILE, go to docker
deploy:
	FAAS_REGISTRY=$(FAAS_REGISTRY) FAAS_TAG=$(FAAS_TAG) FAAS_CONFIG=$$(cat $(sort $(CONFIGS)) | sha256sum | cut -c1-12) \
	  docker stack deploy -c stack.yml $(DEPLOY_FLAGS) faas

## dist: static gateway and fwatchdog for each of PLATFORMS, and their sums
dist:
	rm -rf $(DIST)
	mkdir -p $(DIST)
	@set -e; $(foreach p,$(PLATFORMS),$(call compile,gateway,.,$p) $(call compile,fwatchdog,./watchdog/fwatchdog,$p))
	cd $(DIST) && sha256sum gateway-* fwatchdog-* >SHA256SUMS
	@cat $(DIST)/SHA256SUMS

# Nothing of the machine, the path or the day gets in; the revision does.
define compile
CGO_ENABLED=0 GOOS=linux GOARCH=$(call arch,$3) GOAMD64=v1 GOARM=$(patsubst v%,%,$(call variant,$3)) GOFLAGS= \
  go build -trimpath -ldflags '-s -w -buildid= -X main.version=$(VERSION) -X main.revision=$(REVISION)' -o $(DIST)/$1-linux-$(call dashed,$3) $2;
endef

## dist-check: dist, and again in another folder with an empty cache; fails if a byte differs
dist-check: dist
	@set -e; tmp=$$(mktemp -d); trap 'chmod -R u+w "$$tmp"; rm -rf "$$tmp"' EXIT; \
	mkdir $$tmp/copy; tar -c --exclude=./dist . | tar -x -C $$tmp/copy; \
	GOCACHE=$$tmp/cache $(MAKE) -C $$tmp/copy --no-print-directory dist \
	  DIST=$$tmp/dist VERSION='$(VERSION)' REVISION='$(REVISION)' PLATFORMS='$(PLATFORMS)' >/dev/null; \
	diff -r $(DIST) $$tmp/dist; echo "dist: two builds are identical"
