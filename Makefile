# The project's commands; "make" alone lists them.
SHELL := /bin/bash

# The race detector needs a C compiler.
RACE := $(if $(shell command -v "$$(go env CC)"),-race,$(warning without a C compiler the tests run without the race detector))

.PHONY: help test check build

help:
	@sed -n 's/^## *\([a-z-]*\): /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

## test: unit tests; then the tests on a real Swarm, where this machine has what they need
test:
	go test $(RACE) $$(go list ./... | grep -v '/e2e$$')
	go test $(RACE) -count=1 -v -timeout 40m ./e2e

## check: formatting, vet, staticcheck and go.mod
check:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go mod tidy -diff

## build: gateway and fwatchdog for this machine
build:
	go build -o faas .
	go build -o fwatchdog ./watchdog/fwatchdog

# Each adds targets of its own.
-include dist.mk bench.mk
