#!/usr/bin/env bash
# Three db-nodes on this machine: a leader and two replicas with data directories, all gone on Ctrl-C.
#
#   packaging/cluster.sh                   ports 9001, 9002, 9003
#   packaging/cluster.sh 9101 9102 9103    other ports
#
# With --etcd they fail over by themselves: etcd and HAProxy are started, too, and have to be
# installed (Debian: etcd-server, haproxy).
#
#   packaging/cluster.sh --etcd            nodes as above, HAProxy on 9000, etcd on 2379 and 2380
#   packaging/cluster.sh --etcd 9101 9102 9103 9100 9104 9105
#   packaging/cluster.sh --etcd --partitions 16
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

is_etcd=false
partitions=1
if [ "${1:-}" = --etcd ]; then
  is_etcd=true
  shift
  if [ "${1:-}" = --partitions ]; then
    partitions=${2:-}
    [[ $partitions =~ ^[1-9][0-9]*$ ]] || die "--partitions takes a number, such as 16"
    shift 2
  fi
fi
if $is_etcd; then
  ports=(9001 9002 9003 9000 2379 2380)
  for needed in etcd haproxy; do
    command -v "$needed" >/dev/null || PATH=$PATH:/usr/sbin command -v "$needed" >/dev/null ||
      die "$needed is not installed: apt-get install etcd-server haproxy"
  done
else
  ports=(9001 9002 9003)
fi
if [ $# -gt 0 ]; then
  [ $# -eq ${#ports[@]} ] || die "give ${#ports[@]} ports, or none for ${ports[*]}; see --help"
  ports=("$@")
fi
for port in "${ports[@]}"; do
  [[ $port =~ ^[0-9]+$ ]] || die "$port is not a port"
  # shellcheck disable=SC2188
  if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    die "port $port is in use: stop that program, or give ${#ports[@]} other ports"
  fi
done

built="$(dirname "$0")/../target/release/db-node"
program=${DB_NODE:-}
[ -n "$program" ] || { [ -x "$built" ] && program=$built; } || program=$(command -v db-node) ||
  die "db-node is neither built nor in PATH: run cargo build --release"
program=$(realpath "$program")

folder=$(mktemp -d -t db-node-cluster.XXXXXX)
# Of the nodes; and of etcd and HAProxy.
pids=()
others=()

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
  for pid in "${pids[@]}"; do
    [ -z "$pid" ] || wait "$pid" || true
  done
  for _ in $(seq 300); do
    [ -n "$(nodes)" ] || break
    sleep 0.1
  done
  # Last, so that the nodes can tell etcd that they stop.
  [ ${#others[@]} -eq 0 ] || kill "${others[@]}" 2>/dev/null || true
  wait
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

# A leader and two replicas that stay so until another is assigned.
by_hand() {
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
}

# etcd, HAProxy, and nodes that find out by etcd which of them leads.
by_etcd() {
  local etcd=http://127.0.0.1:${ports[4]} peer=http://127.0.0.1:${ports[5]} proxy=${ports[3]}
  (
    trap '' INT
    exec etcd --data-dir "$folder/etcd" \
      --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
      --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
      --initial-cluster "default=$peer" >"$folder/etcd.log" 2>&1
  ) &
  others+=($!)
  local number packaging
  packaging=$(dirname "$0")
  local init=partitions=$partitions,replicas=3
  for number in 0 1 2; do
    start "$number" --etcd "$etcd" --node "node$((number + 1))" --cluster-init $init
  done
  for number in 0 1 2; do
    await "$number" /readyz
  done
  if [ "$partitions" = 1 ]; then
    cat "$packaging/haproxy-etcd.cfg"
  else
    "$packaging/haproxy-partitions.sh" "http://127.0.0.1:${ports[0]}"
  fi >"$folder/haproxy.cfg"
  # The addresses, and a name that another HAProxy on this machine does not have.
  sed -i -e "s/^ *\(user\|group\) haproxy//" -e "s/bind :9000/bind 127.0.0.1:$proxy/" \
    -e "s/abns@db-node/abns@db-node-$$/" \
    -e "s/10\.0\.0\.11:9001/127.0.0.1:${ports[0]}/" \
    -e "s/10\.0\.0\.12:9001/127.0.0.1:${ports[1]}/" \
    -e "s/10\.0\.0\.13:9001/127.0.0.1:${ports[2]}/" "$folder/haproxy.cfg"
  (
    trap '' INT
    PATH=$PATH:/usr/sbin exec haproxy -db -f "$folder/haproxy.cfg" >"$folder/haproxy.log" 2>&1
  ) &
  others+=($!)
  local again="$program --listen 127.0.0.1:${ports[0]} --replication-listen 127.0.0.1:0"
  again="$again --data-dir $folder/node1 --etcd $etcd --node node1"
  cat <<TEXT
node 1   http://localhost:${ports[0]}   process ${pids[0]}
node 2   http://localhost:${ports[1]}   process ${pids[1]}
node 3   http://localhost:${ports[2]}   process ${pids[2]}
HAProxy  http://localhost:$proxy   sends requests to the node that leads (partitions: $partitions)
etcd     $etcd
Logs and data are in $folder until Ctrl-C ends all.

Write and read through HAProxy, and see which node leads:
  curl localhost:$proxy/set -d '{"key":"a","value":"1"}'
  curl 'localhost:$proxy/get?key=a'
  curl 'localhost:${ports[0]}/status?partition=0'

Kill node 1. If it led, another node leads after three seconds; requests wait for it:
  kill -9 ${pids[0]}
  curl localhost:$proxy/set -d '{"key":"a","value":"2"}'

Start it again: it follows. Ctrl-C ends it, too:
  $again >>$folder/node1.log 2>&1 &

Hand leadership over to node 1, at the node that leads; or stop a node, which hands over first:
  curl localhost:${ports[1]}/partition/handover -d '{"id":0,"to":"node1"}'
  kill ${pids[1]}
TEXT
}

if $is_etcd; then by_etcd; else by_hand; fi

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
