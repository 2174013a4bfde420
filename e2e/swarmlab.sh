#!/usr/bin/env bash
# swarmlab: an N-node Docker Swarm on one Linux machine, for tests.
#
# Every node is a dockerd (with its own containerd) in its own network, mount,
# PID, UTS and IPC namespaces. Nodes are joined by a bridge which sits in a
# namespace of its own, so nothing is added to the machine's root network
# namespace, and a Docker daemon already running on the machine is not touched.
# All of a node's processes hang off one PID-namespace init: killing that one
# process ends the daemon, the shims and every container at once.
#
# usage: swarmlab.sh up N [MANAGERS]   create N nodes (default 1 manager)
#        swarmlab.sh down              end everything and remove every trace
#        swarmlab.sh status            nodes as the lab and as Swarm see them
#        swarmlab.sh exec NODE CMD...  run CMD as on that node (NODE 0 or "sw":
#                                      a machine outside the Swarm, same LAN)
#        swarmlab.sh cut NODE          unplug the node's network
#        swarmlab.sh heal NODE         plug it in again
#        swarmlab.sh kill NODE         SIGKILL the node (daemon and containers)
#        swarmlab.sh start NODE        boot a killed node again, same data
#        swarmlab.sh load TAR|IMAGE    docker load into every running node
#        swarmlab.sh sock NODE         print the node's DOCKER_HOST
#        swarmlab.sh ip NODE           print the node's address
#
# environment: SWARMLAB_NAME   (swl)              prefix of namespaces, cgroups
#              SWARMLAB_DIR    (/tmp/swarmlab-run) state and data, not on tmpfs/overlay
#              SWARMLAB_NET    (10.99.0)          first three octets of the LAN
#              SWARMLAB_DOCKERD_ARGS              extra dockerd arguments
#
# Good to know: names that Swarm does not know are forwarded to the resolver in
# /etc/resolv.conf, which the nodes cannot reach, so such a look-up times out
# (10 s) instead of failing; --dns-opt ndots:1 makes names without a dot fail at
# once. A registry for the lab: "exec sw docker-registry serve CONFIG" listening
# on NET.254:5000 (the nodes take NET.0/24 as insecure registries).
set -u -o pipefail

NAME=${SWARMLAB_NAME:-swl}
DIR=${SWARMLAB_DIR:-/tmp/swarmlab-run}
NET=${SWARMLAB_NET:-10.99.0}
SW=$NAME-sw
SELF=$(readlink -f "${BASH_SOURCE[0]}")

die() { echo "swarmlab: $*" >&2; exit 1; }
say() { echo "swarmlab: $*" >&2; }

need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || { say "missing: $1 (Debian package: $2)"; MISSING=1; }
}

prerequisites() {
  [ "$(id -u)" = 0 ] || die "must be run as root"
  MISSING=
  need dockerd docker.io; need docker docker.io; need containerd containerd; need runc runc
  need ip iproute2; need iptables iptables
  need unshare util-linux; need nsenter util-linux; need setsid util-linux
  [ -z "$MISSING" ] || die "install what is missing, e.g.: apt-get install docker.io iproute2 iptables"
}

kernel_check() { # in a throw-away namespace, so nothing is left in the root one
  local out t bad=
  for t in veth bridge "vxlan id 7 dstport 4789"; do
    out=$(unshare --net ip link add swlt0 type $t 2>&1) || { say "kernel cannot create a ${t%% *} device: $out"; bad=1; }
  done
  out=$(unshare --net iptables -t nat -S 2>&1) || { say "iptables nat table does not work here: $out"; bad=1; }
  unshare --mount --pid --fork true 2>/dev/null || { say "cannot create mount and PID namespaces"; bad=1; }
  [ -d /sys/fs/cgroup ] && grep -q cgroup /proc/self/mounts || { say "no cgroup file system is mounted under /sys/fs/cgroup"; bad=1; }
  [ -z "$bad" ] || die "this machine cannot run the lab (is this a container without privileges?)"
}

ipof() { echo "$NET.$((10 + $1))"; }
sockof() { echo "$DIR/n$1/docker.sock"; }
nodes() { [ -d "$DIR" ] && ls "$DIR" 2>/dev/null | sed -n 's/^n\([0-9][0-9]*\)$/\1/p' | sort -n; }
d() { local n=$1; shift; DOCKER_HOST=unix://$(sockof "$n") docker "$@"; }
isnode() { [[ ${1:-} =~ ^[0-9]+$ ]] && [ -d "$DIR/n$1" ] || die "no such node: '${1:-}' (nodes: $(nodes | xargs))"; }

# The process id of the node's "unshare" parent, if it is alive and still ours:
# a pid alone could have been given to somebody else since, so its start time is kept too.
starttime() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
pidof_node() {
  local pid st
  read -r pid st 2>/dev/null <"$DIR/n$1/pid" || return 1
  [ -n "$st" ] && [ "$(starttime "$pid")" = "$st" ] && echo "$pid"
}
initof_node() { # host pid of PID 1 inside the node
  local p; p=$(pidof_node "$1") || return 1
  local c; c=$(cat "/proc/$p/task/$p/children" 2>/dev/null || ps -o pid= --ppid "$p")
  set -- $c; [ -n "${1:-}" ] && echo "$1"
}

net_node() { # (re)create the node's namespace and cable
  local i=$1 ns=$NAME-$1
  ip netns del "$ns" 2>/dev/null
  ip -n "$SW" link del "p$i" 2>/dev/null
  ip netns add "$ns" &&
  ip -n "$SW" link add "p$i" type veth peer name eth0 netns "$ns" &&
  ip -n "$SW" link set "p$i" master br0 up &&
  ip -n "$ns" link set lo up &&
  ip -n "$ns" addr add "$(ipof "$i")/24" dev eth0 &&
  ip -n "$ns" link set eth0 up || die "cannot set up the network of node $i"
}

start_node() {
  local i=$1 dir=$DIR/n$1
  pidof_node "$i" >/dev/null && die "node $i is already running"
  net_node "$i"
  mkdir -p "$dir/data" "$dir/etc"
  echo '{}' >"$dir/etc/daemon.json"
  rm -f "$dir/docker.sock" "$dir/pid"
  # stdin closed and a session of its own: it must outlive the caller, and must not hold its pipes
  setsid nsenter --net="/run/netns/$NAME-$i" \
    unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc \
    bash "$SELF" __init "$i" </dev/null >>"$dir/dockerd.log" 2>&1 &
  local pid=$!
  echo "$pid $(starttime "$pid")" >"$dir/pid"
}

wait_node() {
  local i=$1 t=$((SECONDS + 60))
  until d "$i" version >/dev/null 2>&1; do
    pidof_node "$i" >/dev/null || { tail -n 15 "$DIR/n$i/dockerd.log" >&2; die "dockerd of node $i ended; see above"; }
    [ $SECONDS -lt $t ] || { tail -n 15 "$DIR/n$i/dockerd.log" >&2; die "dockerd of node $i does not answer within 60 s"; }
    sleep 0.1
  done
}

node_init() { # PID 1 of a node; everything mounted here is invisible outside
  local i=$1 dir=$DIR/n$1 resolv
  resolv=$(cat /etc/resolv.conf 2>/dev/null)
  mount -t tmpfs -o mode=755 tmpfs /run || exit 1     # private /run/docker, /run/containerd, xtables.lock
  case $(readlink -f /etc/resolv.conf) in             # systemd-resolved keeps it under /run
    /run/*) f=$(readlink -f /etc/resolv.conf); mkdir -p "${f%/*}"; echo "$resolv" >"$f" ;;
  esac
  mkdir -p /etc/docker && mount --bind "$dir/etc" /etc/docker   # own key.json, no foreign daemon.json
  hostname "$NAME-$i"
  unset DOCKER_HOST NOTIFY_SOCKET LISTEN_FDS LISTEN_PID
  dockerd --data-root "$dir/data" --exec-root /run/docker --pidfile /run/docker.pid \
    -H "unix://$dir/docker.sock" -H unix:///run/docker.sock \
    --insecure-registry "$NET.0/24" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/swarmlab-$NAME/n$i" \
    ${SWARMLAB_DOCKERD_ARGS:-} &
  local dpid=$!
  trap 'kill -TERM $dpid' TERM
  while kill -0 $dpid 2>/dev/null; do wait $dpid; done   # bash also reaps orphaned shims
}

kill_node() {
  local i=$1 p init n=0
  p=$(pidof_node "$i") || { rm -f "$DIR/n$i/pid"; return 0; }
  init=$(initof_node "$i")
  # the init dies -> the kernel kills the whole PID namespace, containers too
  [ -n "$init" ] && kill -KILL "$init" 2>/dev/null
  while pidof_node "$i" >/dev/null; do
    n=$((n + 1)); [ $n -gt 20 ] && kill -KILL "$p" 2>/dev/null
    [ $n -gt 200 ] && die "node $i (pid $p) does not die"
    sleep 0.05
  done
  rm -f "$DIR/n$i/pid" "$DIR/n$i/docker.sock"
}

cmd_up() {
  local n=${1:-} m=${2:-1} i token
  [[ $n =~ ^[1-9][0-9]?$ ]] || die "usage: up N [MANAGERS], N from 1 to 99"
  [[ $m =~ ^[1-9][0-9]?$ ]] && [ "$m" -le "$n" ] || die "MANAGERS must be between 1 and N"
  kernel_check
  [ -e "$DIR" ] && die "$DIR exists: a lab is up already, or was not taken down ('$0 down' first)"
  ip netns list | grep -q "^$NAME-" && die "network namespaces named $NAME-* exist ('$0 down' first, or another SWARMLAB_NAME)"
  mkdir -p "$DIR" && chmod 711 "$DIR" && : >"$DIR/.swarmlab" || die "cannot create $DIR"
  case $(stat -f -c %T "$DIR") in overlayfs) say "warning: $DIR is on overlayfs, dockerd will use the slow vfs driver; set SWARMLAB_DIR" ;; esac
  trap 'rc=$?; trap - EXIT; if [ $rc != 0 ]; then say "up failed, taking down"; cmd_down; fi; exit $rc' EXIT
  trap 'exit 130' INT TERM
  # "ip netns add" makes /run/netns a mount of its own the first time; remember, so that down can undo it
  grep -q ' /run/netns ' /proc/self/mountinfo || : >"$DIR/.made-run-netns"
  ip netns add "$SW" && ip -n "$SW" link set lo up &&
    ip -n "$SW" link add br0 type bridge && ip -n "$SW" addr add "$NET.254/24" dev br0 &&
    ip -n "$SW" link set br0 up || die "cannot set up the switch namespace"
  for ((i = 1; i <= n; i++)); do start_node "$i"; done
  for ((i = 1; i <= n; i++)); do wait_node "$i"; done
  d 1 swarm init --advertise-addr "$(ipof 1)" --listen-addr "$(ipof 1):2377" >/dev/null || die "swarm init failed"
  for ((i = 2; i <= n; i++)); do
    token=$(d 1 swarm join-token -q "$([ "$i" -le "$m" ] && echo manager || echo worker)") || die "no join token"
    d "$i" swarm join --token "$token" --advertise-addr "$(ipof "$i")" --listen-addr "$(ipof "$i"):2377" "$(ipof 1):2377" >/dev/null ||
      die "node $i cannot join"
  done
  i=0
  until [ "$(d 1 node ls --format '{{.Status}}' | grep -c Ready)" = "$n" ]; do
    i=$((i + 1)); [ $i -lt 300 ] || die "nodes do not become Ready"
    sleep 0.1
  done
  trap - EXIT INT TERM
  say "$n nodes ($m managers) are up; export DOCKER_HOST=unix://$(sockof 1)"
}

cmd_down() {
  local i c
  if [ -e "$DIR" ] && [ ! -e "$DIR/.swarmlab" ]; then die "$DIR was not made by swarmlab; not removing it"; fi
  for i in $(nodes); do kill_node "$i" & done
  wait
  for i in $(ip netns list 2>/dev/null | awk -v p="$NAME-" 'index($1, p) == 1 {print $1}'); do
    [[ ${i#"$NAME-"} =~ ^([0-9]+|sw)$ ]] || continue
    for c in $(ip netns pids "$i" 2>/dev/null); do   # e.g. a registry started with "exec sw"
      [ "$c" = $$ ] || kill -KILL "$c" 2>/dev/null
    done
    ip netns del "$i"
  done
  for _ in 1 2 3 4 5; do   # cgroups are freed a moment after their processes
    c=$(find /sys/fs/cgroup -depth -type d \( -path "*/swarmlab-$NAME" -o -path "*/swarmlab-$NAME/*" \) 2>/dev/null)
    [ -z "$c" ] && break
    echo "$c" | xargs -r rmdir 2>/dev/null; sleep 0.1
  done
  [ -e "$DIR" ] || return 0
  if [ -e "$DIR/.made-run-netns" ] && [ -z "$(ls -A /run/netns 2>/dev/null)" ]; then
    umount /run/netns 2>/dev/null && rmdir /run/netns 2>/dev/null
  fi
  for _ in 1 2 3 4 5; do rm -rf --one-file-system "$DIR" 2>/dev/null && break; sleep 0.3; done
  [ ! -e "$DIR" ] || die "could not remove all of $DIR"
}

cmd_status() {
  [ -e "$DIR/.swarmlab" ] || { echo "no lab (in $DIR)"; return 1; }
  local i mgr=
  printf '%-5s %-12s %-8s %-8s %s\n' NODE ADDRESS PID CABLE DOCKER_HOST
  for i in $(nodes); do
    printf '%-5s %-12s %-8s %-8s %s\n' "$i" "$(ipof "$i")" "$(pidof_node "$i" || echo dead)" \
      "$(ip -n "$SW" -br link show "p$i" 2>/dev/null | grep -q '[<,]UP[,>]' && echo in || echo cut)" "unix://$(sockof "$i")"
  done
  for i in $(nodes); do
    pidof_node "$i" >/dev/null && timeout 5 env DOCKER_HOST="unix://$(sockof "$i")" docker node ls 2>/dev/null && return 0
  done
  echo "no manager with a quorum answers"
}

cmd_exec() {
  local n=${1:-} init; shift || die "usage: exec NODE CMD..."
  [ $# -gt 0 ] || die "usage: exec NODE CMD..."
  [ -e "$DIR/.swarmlab" ] || die "no lab is up"
  if [ "$n" = 0 ] || [ "$n" = sw ]; then exec nsenter --net="/run/netns/$SW" -- "$@"; fi
  isnode "$n"
  init=$(initof_node "$n") || die "node $n is not running"
  unset DOCKER_HOST
  exec nsenter -t "$init" --mount --uts --ipc --net --pid -- \
    bash -c 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"' - "$PWD" "$@"
}

cmd_load() {
  local what=${1:-} i tmp=
  [ -n "$what" ] || die "usage: load TAR|IMAGE"
  if [ ! -f "$what" ]; then
    tmp=$DIR/load.$$.tar; docker save -o "$tmp" "$what" || { rm -f "$tmp"; die "no such file or image: $what"; }; what=$tmp
  fi
  for i in $(nodes); do
    pidof_node "$i" >/dev/null || continue
    d "$i" load -q -i "$what" | sed "s/^/node $i: /" || { rm -f "$tmp"; die "load failed on node $i"; }
  done
  [ -z "$tmp" ] || rm -f "$tmp"
}

case ${1:-} in
  __init) shift; node_init "$@" ;;
  up|down|status|exec|cut|heal|kill|start|load|sock|ip)
    c=$1; shift; prerequisites
    case $c in
      up) cmd_up "$@" ;;
      down) cmd_down ;;
      status) cmd_status ;;
      exec) cmd_exec "$@" ;;
      load) cmd_load "$@" ;;
      cut) isnode "${1:-}"; ip -n "$SW" link set "p$1" down ;;
      heal) isnode "${1:-}"; ip -n "$SW" link set "p$1" up ;;
      kill) isnode "${1:-}"; pidof_node "$1" >/dev/null || die "node $1 is not running"; kill_node "$1" ;;
      start) isnode "${1:-}"; start_node "$1"; wait_node "$1" ;;
      sock) isnode "${1:-}"; echo "unix://$(sockof "$1")" ;;
      ip) isnode "${1:-}"; ipof "$1" ;;
    esac ;;
  *) sed -n '/^# usage:/,/^# environment/{/^# environment/d;s/^# \{0,1\}//;p}' "$SELF" >&2; exit 2 ;;
esac
