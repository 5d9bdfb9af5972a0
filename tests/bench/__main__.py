"""Runs the benchmarks and compares them with their budgets: `python -m tests.bench [--short] [NAME ...]`.

Exits with 1 when a budget was missed. `--json FILE` also writes the numbers.
"""

import argparse
import importlib
import sys
from pathlib import Path

import msgspec
from tests.bench.report import Measure, describe_hardware, show

BENCHES = ("control_plane", "start", "docker")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHES)}; all when none is named")
    parser.add_argument("--short", action="store_true", help="fewer and smaller runs, for continuous integration")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    measures: list[Measure] = []
    for name in options.names or BENCHES:
        bench = importlib.import_module(f"tests.bench.bench_{name}")
        found = bench.measure(short=options.short)
        print(show(found), flush=True)
        measures += found
    if options.json is not None:
        options.json.write_bytes(msgspec.json.encode({"hardware": describe_hardware(), "measures": measures}))
    missed = [m.name for m in measures if not m.kept]
    if missed:
        print(f"budget missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
