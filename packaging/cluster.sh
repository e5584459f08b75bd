#!/usr/bin/env bash
# Three db-nodes on this machine: a leader and two replicas with data directories, all gone on Ctrl-C.
#
#   packaging/cluster.sh                   ports 9001, 9002, 9003
#   packaging/cluster.sh 9101 9102 9103    other ports
#
# It runs the program named by DB_NODE, or the one that was built here, or the one in PATH. Until
# Ctrl-C it stays, and keeps the data, whatever becomes of the nodes: a node that was killed is
# started again with the command that it prints.
set -euo pipefail

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
  exit 0
fi

die() {
  echo "cluster.sh: $*" >&2
  exit 2
}

[ $# -eq 0 ] || [ $# -eq 3 ] || die "give three ports, or none for 9001, 9002 and 9003; see --help"
ports=("${@:-9001}")
[ $# -eq 3 ] || ports=(9001 9002 9003)
for port in "${ports[@]}"; do
  [[ $port =~ ^[0-9]+$ ]] || die "$port is not a port"
  # shellcheck disable=SC2188
  if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    die "port $port is in use: stop that program, or give three other ports"
  fi
done

built="$(dirname "$0")/../target/release/db-node"
program=${DB_NODE:-}
[ -n "$program" ] || { [ -x "$built" ] && program=$built; } || program=$(command -v db-node) ||
  die "db-node is neither built nor in PATH: run cargo build --release"
program=$(realpath "$program")

folder=$(mktemp -d -t db-node-cluster.XXXXXX)
pids=()

# Nodes of this cluster that run: one that the reader has started again is no child of this script.
nodes() {
  local process
  for process in /proc/[0-9]*; do
    if [ "$process/exe" -ef "$program" ] &&
      grep -qzxF -e "$folder/node1" -e "$folder/node2" -e "$folder/node3" "$process/cmdline"; then
      echo "${process#/proc/}"
    fi
  done 2>/dev/null
}

finish() {
  trap - EXIT INT TERM
  # Replicas first, so that the leader does not wait for them.
  for pid in "${pids[2]:-}" "${pids[1]:-}" "${pids[0]:-}" $(nodes); do
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  done
  wait
  for _ in $(seq 300); do
    [ -n "$(nodes)" ] || break
    sleep 0.1
  done
  rm -rf "$folder"
  echo "all nodes have ended; $folder is removed"
}
trap finish EXIT
trap 'exit 0' INT TERM

# The nodes get no Ctrl-C of their own: this script ends them, in order.
start() {
  local number=$1
  shift
  # Settings of the reader's shell are not meant for these nodes.
  (
    trap '' INT
    for name in $(compgen -e DB_NODE_); do unset "$name"; done
    exec "$program" --listen "127.0.0.1:${ports[number]}" --replication-listen 127.0.0.1:0 \
      --data-dir "$folder/node$((number + 1))" "$@" 2>"$folder/node$((number + 1)).log"
  ) &
  pids[number]=$!
}

# Waits until a node answers `path` with 200.
await() {
  local number=$1 path=$2
  for _ in $(seq 200); do
    if exec 3<>"/dev/tcp/127.0.0.1/${ports[number]}"; then
      printf 'GET %s HTTP/1.0\r\n\r\n' "$path" >&3
      read -r _ status _ <&3 || status=""
      exec 3>&- 3<&-
      [ "$status" != 200 ] || return 0
    fi 2>/dev/null
    kill -0 "${pids[number]}" 2>/dev/null || break
    sleep 0.05
  done
  tail -n 3 "$folder/node$((number + 1)).log" >&2
  die "node $((number + 1)) is not ready: see above"
}

leader=127.0.0.1:${ports[0]}
start 0
await 0 /leader
start 1 --replica-of "$leader"
start 2 --replica-of "$leader"
await 1 /replica
await 2 /replica

assign="curl localhost:${ports[1]}/partition/assign -d"
follow="curl localhost:${ports[2]}/partition/assign -d"
cat <<TEXT
node 1 leads     http://localhost:${ports[0]}   process ${pids[0]}
node 2 follows   http://localhost:${ports[1]}   process ${pids[1]}
node 3 follows   http://localhost:${ports[2]}   process ${pids[2]}
Logs and data are in $folder until Ctrl-C ends all.

Write to the leader, once both replicas have it; read from a replica:
  curl localhost:${ports[0]}/set -H 'X-Min-Acks: 2' -d '{"key":"a","value":"1"}'
  curl 'localhost:${ports[2]}/get?key=a'

Kill the leader, and let node 2 take over:
  kill -9 ${pids[0]}
  $assign '{"id":0,"role":"leader","epoch":2,"replicas":["http://$leader","http://127.0.0.1:${ports[2]}"]}'
  $follow '{"id":0,"role":"replica","epoch":2,"leader":"http://127.0.0.1:${ports[1]}"}'
  curl localhost:${ports[1]}/set -H 'X-Min-Acks: 1' -d '{"key":"a","value":"2"}'

Start node 1 again; it follows node 2. Ctrl-C ends it, too:
  $program --listen $leader --replication-listen 127.0.0.1:0 --data-dir $folder/node1 >>$folder/node1.log 2>&1 &
  curl --retry 20 --retry-connrefused --retry-delay 1 -f localhost:${ports[0]}/replica
TEXT

# Reports nodes that have ended, and stays.
running=(0 1 2)
while sleep 0.5; do
  still=()
  for number in "${running[@]}"; do
    if kill -0 "${pids[number]}" 2>/dev/null; then
      still+=("$number")
    else
      echo "node $((number + 1)) has ended: $folder/node$((number + 1)).log"
      pids[number]=""
    fi
  done
  running=("${still[@]}")
done 2>/dev/null # the shell's own word on a node that was killed
