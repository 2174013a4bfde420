#!/usr/bin/env bash
# Compares a process per request three ways, in turns, so that a machine that
# slows down slows all of them: a bare posix_spawn loop (the limit),
# exec.CommandContext(...).Run() behind net/http, and fwatchdog. The function is
# cat, the body has 6 bytes, and there are 4 connections. It prints each round
# and the medians of the ratios.
#
#	bench/spawn/compare.sh [ROUNDS] [SECONDS]
#
# Needs go, cc and wrk. FWATCHDOG is the binary to measure, if not this tree's;
# FWATCHDOG2 is another one to measure beside it.
set -euo pipefail

rounds=${1:-9}
seconds=${2:-2}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
pids=()
cleanup() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap cleanup EXIT

for tool in go cc wrk; do
	command -v "$tool" >/dev/null || { echo "compare.sh: $tool is missing" >&2; exit 1; }
done

cc -O2 -pthread -o "$work/spawn" "$here/spawn.c"
(cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$work/execrun" ./bench/execrun)
if [ -z "${FWATCHDOG:-}" ]; then
	FWATCHDOG=$work/fwatchdog
	(cd "$root" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$FWATCHDOG" ./watchdog/fwatchdog)
fi
printf 'wrk.method = "POST"\nwrk.body = "hello\\n"\n' >"$work/post.lua"

# serve NAME PORT COMMAND... starts a server and waits until it answers.
serve() {
	local name=$1 port=$2
	shift 2
	"$@" >"$work/$name.log" 2>&1 &
	pids+=($!)
	for _ in $(seq 100); do
		if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
		sleep 0.05
	done
	echo "compare.sh: $name does not answer:" >&2
	cat "$work/$name.log" >&2
	exit 1
}

# load PORT prints requests per second.
load() {
	wrk -t 1 -c 4 -d "$seconds" -s "$work/post.lua" "http://127.0.0.1:$1/" >"$work/wrk"
	if grep -q 'Non-2xx\|Socket errors' "$work/wrk"; then
		cat "$work/wrk" >&2
		exit 1
	fi
	awk '/^Requests\/sec/ { print $2 }' "$work/wrk"
}

port=${PORT:-18480}
serve execrun "$port" "$work/execrun" "127.0.0.1:$port" cat
serve fwatchdog $((port + 1)) env port=$((port + 1)) fprocess=cat suppress_lock=true "$FWATCHDOG"
if [ -n "${FWATCHDOG2:-}" ]; then
	serve fwatchdog2 $((port + 2)) env port=$((port + 2)) fprocess=cat suppress_lock=true "$FWATCHDOG2"
fi

{
	echo "limit execrun fwatchdog execrun/limit fwatchdog/limit fwatchdog/execrun${FWATCHDOG2:+ second second/fwatchdog}"
	for _ in $(seq "$rounds"); do
		a=$("$work/spawn" 4 "$seconds" cat)
		b=$(load "$port")
		c=$(load $((port + 1)))
		d=
		if [ -n "${FWATCHDOG2:-}" ]; then d=$(load $((port + 2))); fi
		awk -v a="$a" -v b="$b" -v c="$c" -v d="$d" 'BEGIN {
			printf "%.0f %.0f %.0f %.3f %.3f %.3f", a, b, c, b/a, c/a, c/b
			if (d != "") printf " %.0f %.3f", d, d/c
			print ""
		}'
	done
} | tee "$work/table" | column -t -s ' '

columns=$(head -1 "$work/table" | wc -w)
echo "median:"
for i in $(seq "$columns"); do
	name=$(head -1 "$work/table" | cut -d ' ' -f "$i")
	value=$(tail -n +2 "$work/table" | cut -d ' ' -f "$i" | sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR+1)/2)] + v[int((NR+2)/2)]) / 2 }')
	printf '  %-18s %s\n' "$name" "$value"
done
