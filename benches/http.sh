#!/usr/bin/env bash
# Measures the node over HTTP with wrk: /get, /set and a mix, keys at random, with and without pipelining.
#
#   benches/http.sh [ENTRIES] [SECONDS] [CONNECTIONS]      default: 1000000 5 64
#
# Builds the release binary, starts it on a port of the system's choosing, fills it, and prints a line a run:
# requests a second, processor time of the node per request (from /proc/PID/schedstat: what counts where wrk is the slower
# side), and latencies as wrk sees them (a closed loop: stalls show in the maximum only; with pipelining, of a batch).
# The node is pinned to the first processor and wrk to the second, if there are two.
set -euo pipefail
cd "$(dirname "$0")/.."

entries=${1:-1000000}
seconds=${2:-5}
connections=${3:-64}

for tool in wrk python3 taskset curl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: install it (Debian: apt-get install wrk python3 util-linux curl)"; exit 1; }
done

cargo build --release --quiet
log=$(mktemp)
node_cpu=0
load_cpu=$(($(nproc) > 1 ? 1 : 0))
taskset -c $node_cpu target/release/db-node --listen 127.0.0.1:0 2>"$log" &
pid=$!
trap 'kill $pid 2>/dev/null || true; rm -f "$log"' EXIT
address=""
for _ in $(seq 100); do
  address=$(sed -n 's|.*http://\([0-9.:]*\).*|\1|p' "$log" | head -n 1)
  [ -z "$address" ] || break
  sleep 0.05
done
[ -n "$address" ] || { cat "$log"; exit 1; }

rss_mib() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' /proc/$pid/status; }
cpu_ns() { awk '{ print $1 }' /proc/$pid/schedstat; }
# A count of the node's own: requests that wrk sent and did not live to see answered cost time too.
requests() { curl -s "http://$address/status" | python3 -c 'import json, sys; print(json.load(sys.stdin)["loop"]["requests"])'; }
settle() {
  while [ "$(curl -s "http://$address/status" | python3 -c 'import json, sys; print(json.load(sys.stdin)["partitions"][0]["debt"])')" != 0 ]; do
    sleep 0.1
  done
}

echo "$(uname -sr), $(nproc) processors, congestion control $(cat /proc/sys/net/ipv4/tcp_congestion_control)"
echo "idle: $(rss_mib) MiB"
python3 benches/fill.py "$address" set "$entries"
settle
echo "with $entries entries of 16 + 32 bytes: $(rss_mib) MiB"

printf '%-12s %6s %12s %12s %10s %10s %10s\n' run depth requests/s 'CPU us/req' 'p50 us' 'p99 us' 'max us'
run() {
  local mode=$1 face=$2 depth=$3 cpu_before requests_before cpu_after requests_after result
  requests_before=$(requests)
  cpu_before=$(cpu_ns)
  result=$(taskset -c $load_cpu wrk -t1 -c "$connections" -d "${seconds}s" -s benches/http.lua "http://$address" -- \
    "$mode" "$entries" "$depth" "$face" | grep '^RESULT')
  cpu_after=$(cpu_ns)
  requests_after=$(requests)
  read -r _ rate p50 p99 max errors <<<"$result"
  [ "$errors" = 0 ] || echo "$errors errors"
  awk -v run="$mode $face" -v depth="$depth" -v rate="$rate" -v p50="$p50" -v p99="$p99" -v max="$max" \
    -v cpu=$((cpu_after - cpu_before)) -v count=$((requests_after - requests_before)) \
    'BEGIN { printf "%-12s %6d %12d %12.2f %10d %10d %10d\n", run, depth, rate, cpu / count / 1000, p50, p99, max }'
}
for depth in 1 16; do
  for face in json raw; do
    for mode in get set mix; do
      run $mode $face $depth
    done
  done
done
settle
echo "after the runs, debt paid: $(rss_mib) MiB"
curl -s "http://$address/status" | python3 -c 'import json, sys
status = json.load(sys.stdin)["loop"]
print("{turns} turns, {slowTurns} over 2 ms; longest turn {longestTurnUs} us, longest slice {longestSliceUs} us of processor time".format(**status))'
