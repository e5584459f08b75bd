#!/usr/bin/env bash
# Measures what durability costs: SET with wrk for memory only and each --fsync, Redis (if it is there) with appendfsync always
# and everysec by redis-benchmark, GET latency beside a write load, and how fast a log and a checkpoint are loaded.
#
#   benches/durability.sh [ROUNDS] [SECONDS] [CONNECTIONS] [DIRECTORY]      default: 5 3 64, a new one below target/
#
# Candidates take turns, round by round; medians are printed. Processor time is that of all threads of the server
# (/proc/PID/task/*/schedstat). Nothing is pinned: the disk thread and the load generator share what the loop leaves.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5}
seconds=${2:-3}
connections=${3:-64}
directory=${4:-target/durability}

for tool in wrk python3 curl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: install it (Debian: apt-get install wrk python3 curl)"; exit 1; }
done
redis=$(command -v redis-server || true)
[ -n "$redis" ] || echo "redis-server is missing: measuring without it (Debian: apt-get install redis-server)"

cargo build --release --quiet
rm -rf "$directory"
mkdir -p "$directory"
results=$directory/results
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT

start_node() { # NAME OPTIONS...: sets pid and address
  local name=$1
  shift
  target/release/db-node --listen 127.0.0.1:0 "$@" 2>"$directory/$name.log" &
  pid=$!
  pids+=("$pid")
  address=""
  for _ in $(seq 200); do
    address=$(sed -n 's|.*http://\([0-9.:]*\).*|\1|p' "$directory/$name.log" | head -n 1)
    [ -n "$address" ] && curl -fs "http://$address/readyz" >/dev/null && return
    sleep 0.05
  done
  cat "$directory/$name.log"
  exit 1
}
cpu_ns() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }
requests() { curl -s "http://$1/status" | python3 -c 'import json, sys; print(json.load(sys.stdin)["loop"]["requests"])'; }
note() { echo "$*" >>"$results"; }

measure_node() { # NAME PID ADDRESS MODE
  local cpu_before requests_before result
  requests_before=$(requests "$3")
  cpu_before=$(cpu_ns "$2")
  result=$(wrk -t1 -c "$connections" -d "${seconds}s" -s benches/http.lua "http://$3" -- "$4" 100000 1 json | grep '^RESULT')
  read -r _ rate p50 p99 _ errors <<<"$result"
  [ "$errors" = 0 ] || echo "$errors errors in $1"
  note "$1 $rate $p50 $p99 $(((($(cpu_ns "$2") - cpu_before)) / (($(requests "$3") - requests_before))))"
}
measure_redis() { # NAME PORT PID
  local cpu_before rate count
  cpu_before=$(cpu_ns "$3")
  count=$((seconds * 50000))
  rate=$(redis-benchmark -p "$2" -c "$connections" -n "$count" -r 100000 -d 32 -t set --csv 2>/dev/null | tail -1 | tr -d '"')
  IFS=, read -r _ per_second _ _ p50 _ p99 _ <<<"$rate"
  note "$1 ${per_second%.*} $(awk "BEGIN { print int($p50 * 1000) }") $(awk "BEGIN { print int($p99 * 1000) }")" \
    "$((($(cpu_ns "$3") - cpu_before) / count))"
}

declare -A node_pid node_address
for fsync in memory always interval never; do
  if [ $fsync = memory ]; then
    start_node memory
  else
    start_node $fsync --data-dir "$directory/$fsync" --fsync $fsync
  fi
  node_pid[$fsync]=$pid
  node_address[$fsync]=$address
  python3 benches/fill.py "$address" set 100000 >/dev/null
done
if [ -n "$redis" ]; then
  port=17379
  for policy in always everysec; do
    mkdir "$directory/redis-$policy"
    redis-server --port $port --dir "$PWD/$directory/redis-$policy" --appendonly yes --appendfsync $policy --save "" \
      >"$directory/redis-$policy.log" &
    pids+=($!)
    declare "redis_$policy=$port $!"
    port=$((port + 1))
  done
  sleep 1
fi

echo "$(uname -sr), $(nproc) processors, congestion control $(cat /proc/sys/net/ipv4/tcp_congestion_control)," \
  "$(df --output=fstype "$directory" | tail -1) on $(df --output=source "$directory" | tail -1)"
for _ in $(seq "$rounds"); do
  for fsync in memory always interval never; do
    measure_node "set-$fsync" "${node_pid[$fsync]}" "${node_address[$fsync]}" set
  done
  if [ -n "$redis" ]; then
    # shellcheck disable=SC2086
    measure_redis set-redis-always $redis_always
    # shellcheck disable=SC2086
    measure_redis set-redis-everysec $redis_everysec
  fi
  # GET beside a write load of a few connections at half speed.
  for fsync in memory always; do
    wrk -t1 -c 16 -d "$((seconds + 1))s" -s benches/http.lua "http://${node_address[$fsync]}" -- set 100000 1 json >/dev/null &
    writer=$!
    sleep 0.3
    measure_node "get-beside-set-$fsync" "${node_pid[$fsync]}" "${node_address[$fsync]}" get
    wait $writer
  done
done

printf '%-24s %12s %10s %10s %12s\n' 'median of rounds' requests/s 'p50 us' 'p99 us' 'CPU ns/req'
python3 - "$results" <<'PYTHON'
import collections, statistics, sys

rows = collections.OrderedDict()
for line in open(sys.argv[1]):
    name, *figures = line.split()
    rows.setdefault(name, []).append([float(figure) for figure in figures])
medians = {name: [statistics.median(column) for column in zip(*runs)] for name, runs in rows.items()}
for name, (rate, p50, p99, cpu) in medians.items():
    print(f"{name:<24} {rate:>12.0f} {p50:>10.0f} {p99:>10.0f} {cpu:>12.0f}")
def ratio(label, a, b, column):
    if a in medians and b in medians:
        print(f"{label:<52} {medians[a][column] / medians[b][column]:.2f}")
ratio("SET/s, always: node / Redis", "set-always", "set-redis-always", 0)
ratio("CPU per SET: interval / memory", "set-interval", "set-memory", 3)
ratio("GET p99 beside SET: always / memory", "get-beside-set-always", "get-beside-set-memory", 2)
PYTHON

echo "loading 900,000 entries of 16 + 32 bytes, from listening to loaded:"
start_node load --data-dir "$directory/load" --fsync never
python3 benches/fill.py "$address" set 900000 >/dev/null
sleep 0.2
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
load() { # NAME
  start_node load --data-dir "$directory/load" --fsync never
  python3 - "$1" "$directory/load.log" <<'PYTHON'
import datetime, re, sys

lines = open(sys.argv[2]).read().splitlines()
def time_of(word):
    return next(datetime.datetime.fromisoformat(line.split()[0]) for line in lines if word in line)
milliseconds = (time_of(" loaded ") - time_of(" listens ")).total_seconds() * 1000
print(f"  {sys.argv[1]:<12} {milliseconds:.0f} ms: {re.search('loaded.*', ' '.join(lines))[0]}")
PYTHON
}
for _ in 1 2 3; do
  load log
  kill -9 "$pid"
  wait "$pid" 2>/dev/null || true
done
start_node load --data-dir "$directory/load" --fsync never
curl -s -X POST "http://$address/admin/checkpoint" >/dev/null
until [ "$(curl -s "http://$address/status" | python3 -c 'import json, sys; print(json.load(sys.stdin)["partitions"][0]["disk"]["checkpointVersion"])')" = 900000 ]; do
  sleep 0.1
done
kill "$pid"
wait "$pid" || true
for _ in 1 2 3; do
  load checkpoint
  kill "$pid"
  wait "$pid" || true
done
