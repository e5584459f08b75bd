#!/bin/sh
# The node beside its peers, in one run; `benches/compare/run.sh --help` tells what there is.
exec python3 "$(dirname "$0")/compare.py" "$@"
