# Benchmarks, side by side; see docs/performance.md. Included by the Makefile.

BENCH_ROUNDS  ?= 7
BENCH_SECONDS ?= 2
BENCH_ONLY    ?=
BENCH_OUTPUT  ?= bench/results.md
BENCH_CACHE   ?= $(HOME)/.cache/faas-bench

.PHONY: bench bench-quick bench-others

## bench: compare gateway and watchdog with others of their kind; writes bench/results.md
bench:
	PATH="$$PATH:$(BENCH_CACHE):/usr/sbin" go run ./bench -rounds $(BENCH_ROUNDS) -seconds $(BENCH_SECONDS) -only '$(BENCH_ONLY)' -o '$(BENCH_OUTPUT)'

## bench-quick: the same with short rounds, printed only
bench-quick:
	$(MAKE) bench BENCH_ROUNDS=2 BENCH_SECONDS=1 BENCH_OUTPUT=

## bench-others: install what the benchmark compares with: wrk, nginx and HAProxy from Debian, Caddy from its source
bench-others:
	apt-get install -q -y --no-install-recommends wrk nginx-light haproxy
	GOBIN=$(BENCH_CACHE) go install github.com/caddyserver/caddy/v2/cmd/caddy@latest
