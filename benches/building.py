"""What the benchmarks here build and where it lies."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NODE, BENCH = ROOT / "target/release/db-node", ROOT / "target/release/db-node-bench"


def build() -> None:
    """Builds the node and the load generator."""
    # The generator first: the node is to be built without what only the generator needs.
    for features in (["--features", "bench", "--bin", "db-node-bench"], ["--bin", "db-node"]):
        subprocess.run(["cargo", "build", "--release", "--locked", *features], cwd=ROOT, check=True)
