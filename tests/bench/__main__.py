"""Runs the benchmarks and compares them with their budgets: `python -m tests.bench [--short] [NAME ...]`.

Exits with 1 when a budget was missed. `--json FILE` also writes the numbers. `packing` needs `--data DIR`, the folder
with the openb traces, and takes `--seeds N` and `--strategies NAME,...`.
"""

import argparse
import importlib
import sys
from pathlib import Path

import msgspec
from tests.bench.report import Measure, describe_hardware, show

BENCHES = (
    "control_plane",
    "start",
    "docker",
    "engine",
    "live",
    "kernel",
    "cron",
    "batch",
    "etcd",
    "services",
    "swarm",
    "failover",
    "outage",
)
BY_NAME = ("batch_million", "batch_real", "batch_docker")
"""Run when named: they take long, or more of the machine than others like."""

WITH_DATA = ("packing",)
"""Run when named, or when there is `--data`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    known = (*BENCHES, *BY_NAME, *WITH_DATA)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(known)}; all when none is named")
    parser.add_argument("--short", action="store_true", help="fewer and smaller runs, for continuous integration")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder with the traces, for packing")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs per list and strategy, for packing")
    parser.add_argument("--strategies", metavar="NAME,...", help="which to run, for packing")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}")
    if options.data is None and set(options.names) & set(WITH_DATA):
        parser.error(f"{', '.join(WITH_DATA)} needs --data DIR, the folder with the traces")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; give at least 1")
    strategies = options.strategies.split(",") if options.strategies else None
    extra = {"data": options.data, "seeds": options.seeds, "strategies": strategies}
    with_data = {key: value for key, value in extra.items() if value is not None}
    measures: list[Measure] = []
    for name in options.names or ((*BENCHES, *WITH_DATA) if options.data else BENCHES):
        bench = importlib.import_module(f"tests.bench.bench_{name}")
        found = bench.measure(short=options.short, **(with_data if name in WITH_DATA else {}))
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
