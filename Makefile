# The project's commands; "make" alone lists them.
SHELL := /bin/bash

# The race detector needs a C compiler.
RACE := $(if $(shell command -v "$$(go env CC)"),-race,$(warning without a C compiler the tests run without the race detector))

.PHONY: help test check build

help:
	@sed -n 's/^## *\([a-z-]*\): /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

# The stack has a Swarm of its own: a task of a function that is long gone may hold
# the network that it is to make.
#
## test: unit tests; then the tests on a real Swarm, where this machine has what they need
test: e2e/ui/node_modules e2e/openfaas/node_modules
	go test $(RACE) -timeout 30m $$(go list ./... | grep -v '/e2e$$')
	cd async && go test $(RACE) -timeout 30m ./...
	go test $(RACE) -count=1 -v -timeout 30m -run '^TestStack' ./e2e
	go test $(RACE) -count=1 -v -timeout 60m -skip '^TestStack' ./e2e

# What drives the browser, and a client of OpenFaaS. Without them those tests are
# skipped, or fail where they are required.
e2e/%/node_modules: e2e/%/package-lock.json
	-cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund && touch node_modules

## check: formatting, vet, staticcheck and go.mod
check:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go mod tidy -diff
	cd async && go vet ./...
	cd async && go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	cd async && go mod tidy -diff

## build: gateway, fwatchdog and faas-async for this machine
build:
	go build -o faas .
	go build -o fwatchdog ./watchdog/fwatchdog
	cd async && go build -o ../faas-async .

# Each adds targets of its own.
-include dist.mk bench.mk
