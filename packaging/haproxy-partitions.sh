#!/usr/bin/env bash
# Makes the file of an HAProxy (2.4 or newer) in front of a cluster with several partitions: each
# request goes to the node that leads the partition of its key (docs/cluster.md).
#
#   packaging/haproxy-partitions.sh http://10.0.0.11:9001 >haproxy.cfg
#   packaging/haproxy-partitions.sh http://10.0.0.11:9001 -H @header.txt >haproxy.cfg
#   haproxy -c -f haproxy.cfg        # checks it
#
# What follows the address of a node is for curl, which asks it for /cluster/map: where it wants a
# token, header.txt holds "Authorization: Bearer TOKEN". All times are those of haproxy-etcd.cfg,
# which has to be in the folder of this script.
#
# The file stays right while partitions are handed over and moved between the nodes that it lists:
# those that have a copy of any partition. Make it anew when a node is added or has another address.
set -euo pipefail

die() {
  echo "haproxy-partitions.sh: $*" >&2
  exit 1
}

case ${1:-} in
  "" | --help | -h)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

shipped="$(dirname "$0")/haproxy-etcd.cfg"
[ -r "$shipped" ] || die "$shipped is not there"
url=$1
shift
map=$(curl -sSf -m 10 "$@" "${url%/}/cluster/map") || die "$url gives no map"

count=$(sed -n 's/.*"partitions":\([0-9][0-9]*\).*/\1/p' <<<"$map")
[ -n "$count" ] || die "the cluster was not made yet: $map"
[[ $map == *'"hash":"crc32c"'* ]] || die "keys are spread by another hash: $map"
nodes=$(grep -o '"http://[^"]*"' <<<"$map" | sed 's|"http://\(.*\)"|\1|' | sort -u)
[ -n "$nodes" ] || die "no node has registered: $map"

# A line for each node, with its number and its address.
servers() {
  local line=$1 node number=0
  for node in $nodes; do
    number=$((number + 1))
    line=${1//NUMBER/$number}
    echo "    ${line//ADDRESS/$node}"
  done
}

echo "# $count partitions. Made by packaging/haproxy-partitions.sh: change it there, not here."
# Users, times, checks, and the answers of HAProxy itself.
sed -n '/^global/,/^frontend/{/^frontend/!p}' "$shipped"
cat <<TEXT
frontend db
    bind :9000
    option httplog
$(sed -n '/# These speak to one node/,/monitor-uri/p' "$shipped")

    # The key: in the path, in the query, or in a JSON body, which has to be here to be read.
    option http-buffer-request
    acl is_path path_beg /kv/
    acl has_query url_param(key) -m found
    acl has_body req.body -m found
    acl has_key var(txn.key) -m found
    http-request set-var(txn.key) path,regsub(^/kv/,),url_dec(0) if is_path
    http-request set-var(txn.key) url_param(key),url_dec(1) if has_query !is_path
    http-request set-var(txn.key) req.body,json_query('\$.key') if has_body !has_key

    # The partition that the client names, or else that of the key. The node looks at the key
    # itself, and answers 421 where the two differ.
    acl is_named req.hdr(X-Partition-ID) -m found
    acl has_param url_param(partition) -m found
    http-request set-header X-Partition-ID %[url_param(partition)] if !is_named has_param
    http-request set-header X-Partition-ID %[var(txn.key),crc32c(),mod($count)] if !is_named has_key
    acl is_number req.hdr(X-Partition-ID) -m reg '^(0|[1-9][0-9]*)$'
    acl is_partition req.hdr(X-Partition-ID) -m int lt $count
    http-request set-var(txn.partition) req.hdr(X-Partition-ID)
    http-request set-var(txn.backend) str(p),concat(,txn.partition,)
    http-request set-var(txn.checks) str(checks),concat(,txn.partition,)

    # A node that does not lead answers writes with 421, which HAProxy cannot send elsewhere, and
    # reads with what it has. With this header it answers both with 503.
    http-request set-header X-Not-Leader 503 if is_number is_partition
    http-request set-header X-Proxy-Try 0

    # No partition: the key is in a form or in a batch, or not in the first 16 KiB (tune.bufsize).
    # A node that does not lead its partition answers 421 with the address of the one that does.
    use_backend any if !is_number or !is_partition
    use_backend wait if { var(txn.checks),nbsrv lt 1 }
    use_backend %[var(txn.backend)]

backend any
    # A long poll of /watch waits up to 300 s for a change, without a byte in between.
    http-request set-timeout server 310s if { path /watch }
    option httpchk
    http-check send meth GET uri /livez ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
$(servers "server dbNUMBER ADDRESS tcp-ut 3s")

$(sed -n '/^# A request waits here/,/^# It is tried again/{/^# It is tried/!p}' "$shipped")

# It is tried again; the last of 50 times the answer is what a node says.
frontend again
    bind abns@db-node-again
    option dontlog-normal
    option http-buffer-request
    http-request set-header X-Proxy-Try %[req.hdr(X-Proxy-Try),add(1)]
    http-request set-var(txn.partition) req.hdr(X-Partition-ID)
    http-request set-var(txn.backend) str(p),concat(,txn.partition,)
    http-request set-var(txn.checks) str(checks),concat(,txn.partition,)
    use_backend any if { req.hdr(X-Proxy-Try) -m int ge 50 }
    use_backend wait if { var(txn.checks),nbsrv lt 1 }
    use_backend %[var(txn.backend)]

# No node leads the partition.
backend wait
    http-request set-timeout server 310s if { path /watch }
    server again abns@db-node-pause no-check pool-max-conn 0

# For each partition one backend that checks which node leads, and one that requests go to. The
# weights of that are 0, so that only \`use-server\` chooses a node: the one that leads. The further
# try goes to \`again\`, the only server with a weight, whose answer is not tried again.
TEXT
for ((id = 0; id < count; id++)); do
  cat <<TEXT

backend checks$id
    option httpchk
    http-check send meth GET uri /leader?partition=$id ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
$(servers "server dbNUMBER ADDRESS tcp-ut 3s")

backend p$id
    retries 1
    http-request set-timeout server 310s if { path /watch }
    retry-on conn-failure 503
$(servers "use-server dbNUMBER if { srv_is_up(checks$id/dbNUMBER) }")
$(servers "server dbNUMBER ADDRESS tcp-ut 3s weight 0 no-check track checks$id/dbNUMBER")
    server again abns@db-node-pause no-check pool-max-conn 0
TEXT
done
