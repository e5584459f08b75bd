#!/bin/sh
# The node beside a bare epoll loop, nginx and Redis, in one run: `benches/compare/run.sh [--quick] [--rounds N] [--seconds N]`.
exec python3 "$(dirname "$0")/compare.py" "$@"
