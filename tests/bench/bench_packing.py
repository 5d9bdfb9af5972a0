"""Repeats the published GPU packing experiment on the openb lists of a folder and compares with the published table.

The folder holds `openb_nodes_gpu_node.csv.gz`, one `openb_pods_LIST.csv.gz` per list and, to compare with,
`fgd_reference.csv` (columns `workload, policy, arrived_pct, alloc_gpu_pct_mean`). Every list that is found is run;
no parameter of any strategy depends on the list. Numbers are percentages of all GPUs that are allocated when as much
has been asked as there is, and the means of all seeds, as published.
"""

import csv
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean

from tests.bench.report import Measure

from corral.allocator.packing import Demand, Supply
from corral.lib.errors import NotFound
from corral.sim.openb import read_nodes, read_pods
from corral.sim.packing import LIVE, NAMES, LivePacker, Run, inflate, repeat_experiment

NODES = "openb_nodes_gpu_node"
PODS = "openb_pods_"
FIRST_SEED, SEEDS = 42, 10
CUT_OFFS = (95, 100, 110, 120, 130)
FULL = 100
OURS = LIVE
DEFAULT = ("bestfit", OURS)
PAIRS = 4000
"""Tasks that end and are followed by another while choices are timed."""

PUBLISHED_NAMES = {
    "random": "Random",
    "dotprod": "DotProd",
    "gpu-clustering": "GpuClustering",
    "gpu-packing": "GpuPacking",
    "bestfit": "BestFit",
    "fgd": "FGD",
}

Reference = Mapping[tuple[str, str, int], float]
Results = dict[tuple[str, str], list[Run]]


def measure(*, short: bool, data: Path, seeds: int = SEEDS, strategies: Sequence[str] = DEFAULT) -> list[Measure]:
    """Shapes: `seeds` runs per strategy and list, one when `short`.

    Errors: `NotFound` when a file or strategy is not there; `Invalid` from a file that is wrong.
    """
    unknown = [name for name in strategies if name not in NAMES]
    if unknown:
        raise NotFound(f"no packing strategy is called {unknown[0]}; there are {', '.join(NAMES)}")
    supplies = [node.supply for node in read_nodes(find(data, NODES))]
    lists = {found.name.removeprefix(PODS).split(".")[0]: found for found in sorted(data.glob(f"{PODS}*.csv*"))}
    if not lists:
        raise NotFound(f"no pod list {PODS}*.csv.gz in {data}; name the folder that holds the openb files")
    reference = read_reference(data / "fgd_reference.csv")
    results: Results = {}
    seconds: dict[str, list[float]] = {name: [] for name in strategies}
    for workload, path in lists.items():
        demands = [pod.demand for pod in read_pods(path)]
        for name in strategies:
            for run, took_s in runs(name, supplies, demands, 1 if short else seeds):
                results.setdefault((workload, name), []).append(run)
                seconds[name].append(took_s)
        print(show_list(workload, strategies, results, reference), file=sys.stderr, flush=True)
    print(show_table(list(lists), strategies, results, reference), flush=True)
    return [
        *(told(workload, name, found) for (workload, name), found in results.items()),
        *(Measure(name=f"packing {name}: one run", unit="s", runs=tuple(took)) for name, took in seconds.items()),
        *budgets(list(lists), strategies, results, reference),
        *([time_choices(supplies, demands, 400 if short else PAIRS)] if OURS in strategies else []),
    ]


def find(data: Path, stem: str) -> Path:
    for name in (f"{stem}.csv.gz", f"{stem}.csv"):
        if (data / name).is_file():
            return data / name
    raise NotFound(f"no {stem}.csv.gz in {data}; name the folder that holds the openb files")


def read_reference(path: Path) -> Reference:
    """Published means by list, policy and cut-off; empty without the file."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {
            (row["workload"], row["policy"], int(row["arrived_pct"])): float(row["alloc_gpu_pct_mean"])
            for row in csv.DictReader(file)
        }


def runs(name: str, supplies: Sequence[Supply], demands: Sequence[Demand], seeds: int) -> Iterator[tuple[Run, float]]:
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        start = time.perf_counter()
        run = repeat_experiment(name, supplies, demands, seed)
        yield run, time.perf_counter() - start


def time_choices(supplies: Sequence[Supply], demands: Sequence[Demand], pairs: int) -> Measure:
    """How many choices a second of CPU time are made on a full cluster where tasks end and others come."""
    random = Random(FIRST_SEED)
    live = LivePacker(supplies)
    running = [grant for demand in inflate(demands, live.gpu_milli, random) if (grant := live.place(demand))]
    choose, spent = live.allocator.gpus.choose, [0.0]

    def timed(cls: int) -> tuple[int, int]:
        start = time.process_time()
        found = choose(cls)
        spent.append(time.process_time() - start)
        return found

    live.allocator.gpus.choose = timed  # type: ignore[method-assign]
    for _ in range(pairs):
        at = random.randrange(len(running))
        running[at], running[-1] = running[-1], running[at]
        live.release(running.pop())
        grant = live.place(demands[random.randrange(len(demands))])
        if grant is not None:
            running.append(grant)
    return Measure(
        name=f"packing {OURS}: choices on {len(supplies)} agents", unit="/s of CPU time",
        runs=((len(spent) - 1) / max(sum(spent), 1e-9),), budget=3000.0, at_least=True,
    )  # fmt: skip


def percentages(found: Sequence[Run], arrived_pct: int = FULL) -> list[float]:
    return [100 * run.allocated_at(arrived_pct / 100) for run in found]


def told(workload: str, name: str, found: Sequence[Run]) -> Measure:
    return Measure(
        name=f"packing {name} {workload}", unit="% of GPUs", runs=tuple(percentages(found)), note="simulated"
    )


def show_list(workload: str, strategies: Sequence[str], results: Results, reference: Reference) -> str:
    """One line per strategy: the mean at every cut-off, the published one in brackets."""
    lines = []
    for name in strategies:
        cells = []
        for cut_off in CUT_OFFS:
            published = reference.get((workload, PUBLISHED_NAMES.get(name, ""), cut_off))
            mean = fmean(percentages(results[workload, name], cut_off))
            cells.append(f"{cut_off}%: {mean:.2f}" + ("" if published is None else f" ({published:.2f})"))
        lines.append(f"{workload} {name}  " + "  ".join(cells))
    return "\n".join(lines)


def show_table(lists: Sequence[str], strategies: Sequence[str], results: Results, reference: Reference) -> str:
    """Mean allocation per list when the whole cluster has been asked, beside the published means."""
    columns = [*strategies, *(f"published {PUBLISHED_NAMES[name]}" for name in ("bestfit", "fgd"))]
    lines = ["  ".join([f"{'list':12}", *(f"{column:>17}" for column in columns)])]
    for workload in lists:
        means = [f"{fmean(percentages(results[workload, name])):.2f}" for name in strategies]
        for policy in (PUBLISHED_NAMES["bestfit"], PUBLISHED_NAMES["fgd"]):
            published = reference.get((workload, policy, FULL))
            means.append("-" if published is None else f"{published:.2f}")
        lines.append("  ".join([f"{workload:12}", *(f"{mean:>17}" for mean in means)]))
    return "\n".join(lines)


def budgets(
    lists: Sequence[str], strategies: Sequence[str], results: Results, reference: Reference
) -> Iterator[Measure]:
    """The harness is faithful when BestFit comes out as published; then the own strategy is held against FGD."""
    compared = [workload for workload in lists if (workload, PUBLISHED_NAMES["fgd"], FULL) in reference]
    means = {key: fmean(percentages(found)) for key, found in results.items()}
    if "bestfit" in strategies:
        for workload in compared:
            published = reference[workload, PUBLISHED_NAMES["bestfit"], FULL]
            yield Measure(
                name=f"packing bestfit {workload}: distance from published",
                unit="points",
                runs=(abs(means[workload, "bestfit"] - published),),
                budget=1.0 if workload == "gpuspec33" else 0.5,
            )
    if OURS in strategies and compared:
        gains = [means[workload, OURS] - reference[workload, PUBLISHED_NAMES["fgd"], FULL] for workload in compared]
        yield Measure(
            name=f"packing {OURS}: lists no worse than published FGD",
            unit=f"of {len(compared)}",
            runs=(float(sum(gain >= 0 for gain in gains)),),
            budget=float(len(compared) - 1),
            at_least=True,
        )
        yield Measure(
            name=f"packing {OURS}: farthest below published FGD",
            unit="points",
            runs=(max(0.0, -min(gains)),),
            budget=0.3,
        )
    for workload, least in (("default", 95.3), ("gpuspec33", 93.0)):
        if OURS in strategies and workload in compared:
            yield Measure(
                name=f"packing {OURS} {workload}: mean",
                unit="% of GPUs",
                runs=(means[workload, OURS],),
                budget=least,
                at_least=True,
            )
