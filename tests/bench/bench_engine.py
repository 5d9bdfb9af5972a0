"""The placement engine alone, without a network or a store: `python -m tests.bench.bench_engine [--short] [NAME ...]`.

The cluster is made up: 10,000 nodes of 4 types with 5 resources and 144 attribute signatures, 2,500 roles of unequal
weight in two levels, 48 shapes, of the demands 10% constrained, 2% asking GPUs, 1% too large for any node. Rates and
fills are by the CPU time of the one thread that decides, so that whatever else a machine does matters less; how long a
tick takes is by the clock.
"""

import argparse
import gc
import importlib.util
import math
import time
from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
from tests.bench.report import Measure, show

from corral.allocator.engine import AGENT, Engine, Mode, Rule, Tally, Tuning
from corral.allocator.engine.columns import BELOW, CLEAR, NEAR
from corral.model.constraints import HOSTNAME, Constraint, Operator

COMPILES = importlib.util.find_spec("numba") is not None
BEST = Mode.COMPILED if COMPILES else Mode.PLAIN

NODE_TYPES = ((48, 192, 0), (64, 256, 0), (96, 384, 0), (128, 512, 8))
CORES = (100, 250, 500, 1000, 2000, 4000)
CORE_ODDS = (30, 25, 20, 14, 8, 3)
MB_PER_CORE = (1024, 1536, 2048, 2560, 3072, 4096, 5120, 6144)
FULL = 0.97
NODE_STEPS: tuple[int, ...] = (1000, 2000, 5000, 10_000, 20_000, 50_000)
ROLE_STEPS: tuple[int, ...] = (10, 100, 1000, 2500, 10_000, 25_000)
BATCH = 1000

Numbers = npt.NDArray[np.int64]


class Load:
    """The made-up cluster, and demands drawn from its mix. `scale` makes every demand that much larger."""

    def __init__(
        self,
        mode: Mode,
        *,
        nodes: int = 10_000,
        roles: int = 2500,
        scale: int = 1,
        tuning: Tuning = Tuning(),  # noqa: B008
    ) -> None:
        self.random = np.random.default_rng(7)
        self.engine = Engine(mode=mode, tuning=tuning, cache=True)
        chance = Random(7)
        for i in range(nodes):
            cores, gb, gpus = NODE_TYPES[chance.choices(range(4), (30, 40, 25, 5))[0]]
            total = {"cpus": cores * 1000, "mem": gb * 1_024_000, "disk": 4_000_000_000, "ports": 30_000_000}
            signature = i % 144
            attributes = {
                "zone": f"z{signature % 6}",
                "generation": f"g{signature // 6 % 4}",
                "disk": ("ssd", "hdd")[signature // 24 % 2],
                "net": ("10g", "25g", "100g")[signature // 48],
            }
            self.engine.add_node(total | ({"gpus": gpus * 1000} if gpus else {}), f"h{i}", attributes)
        groups = max(2, math.isqrt(roles))
        weights = [chance.choice([0.5, 1.0, 2.0, 3.0, 5.0]) for _ in range(roles)]
        for group in range(groups):
            self.engine.add_role(f"t{group}", weight=1.0 + group % 5)
        self.weights = np.array(weights)
        self.parents = np.array([i % groups for i in range(roles)])
        self.roles = np.array([self.engine.add_role(f"t{i % groups}/r{i}", weight=weights[i]) for i in range(roles)])
        self.running: Numbers = np.zeros(0, dtype=np.int64)
        self.kept_classes: list[Numbers] = []
        self.kinds: dict[int, str] = {}
        self.placed: list[Numbers] = []
        self.cursor = 0
        self._make_classes(scale)

    def _make_classes(self, scale: int) -> None:
        intern = self.engine.intern_class
        shapes = [
            ({"cpus": c * scale, "mem": c * scale * mb, "disk": 1_000_000, "ports": 1000}, odds)
            for c, odds in zip(CORES, CORE_ODDS, strict=True)
            for mb in MB_PER_CORE
        ]
        self.plain = [intern(shape) for shape, _ in shapes]
        fields = [
            ("zone", [f"z{i}" for i in range(6)]),
            ("generation", [f"g{i}" for i in range(4)]),
            ("disk", ["ssd", "hdd"]),
            ("net", ["10g", "25g", "100g"]),
        ]
        self.bound = [
            intern(shapes[at][0], [Constraint(field=field, operator=Operator.EQUAL, values=(value,))])
            for at in range(0, 48, 6)
            for field, values in fields
            for value in values
        ]
        self.gpu = [intern(shapes[at][0] | {"gpus": slice * scale}) for at in (8, 24) for slice in (40, 100, 200)]
        self.never = intern({"cpus": 999_000_000})
        # Per thousand: 870 without, 100 with constraints, 20 with GPUs, 10 that nothing fits.
        odds = np.array(
            [870 * odds / 800 for _, odds in shapes]
            + [100 / len(self.bound)] * len(self.bound)
            + [20 / len(self.gpu)] * len(self.gpu)
            + [10]
        )
        self.classes = np.array([*self.plain, *self.bound, *self.gpu, self.never])
        self.size = np.ones(len(self.classes), dtype=np.int64)
        self.scale = scale
        self.odds = odds / odds.sum()
        self.mean_cpus = scale * sum(c * o for c, o in zip(CORES, CORE_ODDS, strict=True)) / 100

    def add_groups(self, groups: int, gang: int) -> None:
        """Let four tenths of the demands be of groups: spread out, one per host, kept near or apart, or gangs."""
        intern = self.engine.intern_class
        found = []
        for i in range(groups):
            shape = {"cpus": CORES[i % 4] * self.scale, "mem": CORES[i % 4] * self.scale * MB_PER_CORE[i % 8]}
            agents, hosts, zones = (Tally(field, f"group:{i}") for field in (AGENT, HOSTNAME, "zone"))
            other = Tally(HOSTNAME, f"group:{(i + 1) % groups}")
            found += [
                (intern(shape, strategy="spread", feeds=[agents, hosts], siblings=agents), 1),
                (intern(shape, rules=[Rule(BELOW, hosts, 1)], feeds=[hosts]), 1),
                (intern(shape, rules=[Rule(CLEAR, other), Rule(NEAR, zones, 1)], feeds=[hosts, zones]), 1),
                (intern(shape, gang=gang), gang),
            ]
        grouped = np.array([cls for cls, _ in found])
        self.size = np.concatenate((np.ones(len(self.classes), dtype=np.int64), [size for _, size in found]))
        self.classes = np.concatenate((self.classes, grouped))
        sizes = np.array([size for _, size in found])
        self.odds = np.concatenate((0.6 * self.odds, 0.4 / len(grouped) / sizes))
        self.odds /= self.odds.sum()
        self.kinds = {int(cls): ("spread", "unique", "affinity", "gang")[i % 4] for i, cls in enumerate(grouped)}

    def draw(self, count: int) -> tuple[Numbers, Numbers, Numbers]:
        """Roles, classes and numbers of so many demands; a gang counts as one."""
        at = self.random.choice(len(self.classes), count, p=self.odds)
        return self.roles[self.random.integers(0, len(self.roles), count)], self.classes[at], self.size[at]

    def submit(self, count: int) -> None:
        self.engine.submit(*self.draw(count))

    def used(self) -> float:
        """The allocated part of all cpus."""
        return 1.0 - float(self.engine.free_by_node()[:, 0].sum()) / self.engine.total["cpus"]

    def fill(self, part: float = FULL) -> None:
        """Demands until so much is allocated; keeps the rows of running tasks."""
        tasks = [np.zeros(0, dtype=np.int64)]
        while (left := part - self.used()) > 0.002 and len(tasks) < 400:
            self.submit(max(BATCH, int(0.9 * left * self.engine.total["cpus"] / self.mean_cpus)))
            tasks.append(self.engine.tick().task)
        self.running = np.concatenate(tasks)
        self.random.shuffle(self.running)

    def end(self, count: int) -> Numbers:
        """Choose running tasks to end, at random."""
        if self.cursor + count > len(self.running):
            self.running = np.concatenate((self.running[self.cursor :], *self.placed))
            self.random.shuffle(self.running)
            self.placed, self.cursor = [], 0
        self.cursor += count
        return self.running[self.cursor - count : self.cursor]


def warm() -> float:
    """Seconds until the compiled form has seen everything once."""
    begun = time.perf_counter()
    load = Load(BEST, nodes=200, roles=20)
    load.fill(0.5)
    load.engine.release(load.end(10))
    load.engine.withdraw(int(load.roles[0]), load.never, 1)
    load.engine.tick()
    return time.perf_counter() - begun


def swap(load: Load, rounds: int, batch: int) -> tuple[float, list[float]]:
    """End so many tasks, ask for as many, place: placements a second of CPU time of all three calls, and seconds of
    each tick.
    """
    placed, spent, ticks = 0, 0.0, []
    for _ in range(rounds):
        ended = load.end(batch)
        asked = load.draw(batch)
        begun = time.process_time()
        load.engine.release(ended)
        load.engine.submit(*asked)
        before = time.perf_counter()
        placements = load.engine.tick(batch)
        ticks.append(time.perf_counter() - before)
        spent += time.process_time() - begun
        placed += len(placements)
        load.placed.append(placements.task)
        load.kept_classes.append(placements.cls)
    return placed / spent, ticks


def exponent(points: dict[int, float]) -> float:
    """The slope of cost over size, both as logarithms: 0 when size costs nothing, 1 when double is double."""
    sizes = np.log(np.array(list(points), dtype=np.float64))
    costs = np.log(np.array(list(points.values())))
    return float(np.polyfit(sizes, costs, 1)[0])


def told(points: dict[int, float]) -> str:
    return "µs per placement: " + ", ".join(f"{size:,}: {1e6 * cost:.2f}" for size, cost in points.items())


def measure_fill(short: bool) -> list[Measure]:
    """A million tasks from nothing: demands in, task records out."""
    found = []
    for mode in (Mode.COMPILED, Mode.PLAIN) if COMPILES else (Mode.PLAIN,):
        tasks = 100_000 if short or mode is Mode.PLAIN else 1_000_000
        runs = []
        for _ in range(2 if short else 3):
            load = Load(mode)
            gc.collect()
            begun = time.process_time()
            load.submit(round(tasks * 1.03))
            placed = sum(len(load.engine.tick(min(50_000, tasks - at))) for at in range(0, tasks, 50_000))
            runs.append(time.process_time() - begun)
            assert placed == tasks, f"{placed} of {tasks} tasks were placed"
        budget = 5.0 if mode is Mode.COMPILED and not short else None
        found.append(Measure(name=f"cold fill of {tasks:,} tasks, {mode}", unit="s", runs=tuple(runs), budget=budget))
    return found


def measure_pairs(short: bool) -> list[Measure]:
    found = []
    for mode in (Mode.COMPILED, Mode.PLAIN) if COMPILES else (Mode.PLAIN,):
        compiled = mode is Mode.COMPILED
        load = Load(mode, scale=4 if short else 1)
        load.fill()
        before = load.used()
        rounds = (10 if short else 40) * (3 if compiled else 1)
        speeds, ticks, singles = [], [], []
        for _ in range(5):
            speed, spent = swap(load, rounds, BATCH)
            speeds.append(speed)
            ticks.append(1000 * float(np.percentile(spent, 99)))
        gc.collect()
        for _ in range(5):
            _, spent = swap(load, 2000, 1)
            singles.append(1e6 * float(np.percentile(spent, 99)))
        part = (
            f"{100 * before:.1f} to {100 * load.used():.1f}% of cpus allocated, {load.engine.running:,} tasks running"
        )
        found += [
            Measure(
                name=f"release-and-place pairs, {mode}", unit="/s", runs=tuple(speeds), at_least=True,
                budget=250_000 if compiled else 20_000, note=f"{BATCH} at a time; {part}",
            ),
            Measure(
                name=f"tick of {BATCH}, p99, {mode}", unit="ms", runs=tuple(ticks), budget=10 if compiled else None,
                note=f"{rounds} ticks a run",
            ),
            Measure(
                name=f"one decision, p99, {mode}", unit="µs", runs=tuple(singles), budget=50 if compiled else None,
                note=f"a tick for one, with its call; exact passes so far {load.engine.counts.exact_passes:,}",
            ),
        ]  # fmt: skip
    return found


def measure_groups(short: bool) -> list[Measure]:
    """The same pairs with demands that look at other tasks: spread, one per host, near and apart, gangs of four."""
    load = Load(BEST, nodes=2000 if short else 10_000, scale=4)
    load.add_groups(20 if short else 100, 4)
    load.fill(0.9)
    swap(load, 3, BATCH)
    speeds = [swap(load, 3 if short else 20, BATCH)[0] for _ in range(5)]
    there: dict[str, int] = {}
    for cls in np.concatenate(load.kept_classes[-50:]).tolist():
        kind = load.kinds.get(cls, "others")
        there[kind] = there.get(kind, 0) + 1
    everything = sum(there.values())
    parts = ", ".join(f"{kind} {100 * n / everything:.0f}%" for kind, n in sorted(there.items()))
    counts = load.engine.counts
    return [
        Measure(
            name=f"pairs with spread, unique-host, affinity and gang demands in the mix, {BEST}", unit="/s",
            runs=tuple(speeds), at_least=True, budget=50_000 if BEST is Mode.COMPILED else None,
            note=f"of the last placements {parts}; {100 * load.used():.1f}% of cpus allocated; "
            f"exact passes {counts.exact_passes:,}, undone {counts.undone:,}",
        )
    ]  # fmt: skip


def measure_scaling(short: bool) -> list[Measure]:
    """Cost of a placement as the cluster and the tree of roles grow; demands four times larger to fill it sooner."""
    nodes, roles = NODE_STEPS, ROLE_STEPS
    if short:
        nodes, roles = (1000, 3000), (10, 1000)
    sizes: dict[int, float] = {}
    for size in nodes:
        load = Load(BEST, nodes=size, scale=4)
        load.fill()
        swap(load, 5, BATCH)
        sizes[size] = 1 / float(np.median([swap(load, 10, BATCH)[0] for _ in range(5)]))
    trees: dict[int, float] = {}
    for size in roles:
        load = Load(BEST, nodes=2000, roles=size, scale=4)
        load.fill()
        swap(load, 5, BATCH)
        trees[size] = 1 / float(np.median([swap(load, 10, BATCH)[0] for _ in range(5)]))
    small = {size: cost for size, cost in sizes.items() if size <= 10_000}
    grown = (("nodes", small, 0.2), ("nodes", sizes, 0.5), ("roles", trees, 0.3))
    return [
        Measure(
            name=f"growth of cost with {what}, {min(points):,} to {max(points):,}, {BEST}",
            unit="exponent",
            runs=(exponent(points),),
            budget=budget,
            note=told(points),
        )
        for what, points, budget in grown
    ]


def measure_fairness(short: bool) -> list[Measure]:
    """Every decision judged anew by someone else's sums, while all roles wait all the time for what always fits."""
    load = Load(BEST, scale=4)
    engine = load.engine
    asked = load.random.integers(0, 3, len(load.roles))
    classes = np.array([load.plain[8], load.plain[16], load.plain[26]])[asked]
    cpus = np.array([CORES[1], CORES[2], CORES[3]])[asked] * 4
    engine.submit(load.roles, classes, 100_000)
    row = {int(role): i for i, role in enumerate(load.roles)}
    held = np.zeros((len(load.roles), 2), dtype=np.int64)
    mem = cpus * np.array([MB_PER_CORE[0], MB_PER_CORE[0], MB_PER_CORE[2]])[asked]
    totals = np.array([engine.total["cpus"], engine.total["mem"]])
    group_weights = np.array([1.0 + i % 5 for i in range(int(load.parents.max()) + 1)])
    groups = np.zeros((len(group_weights), 2), dtype=np.int64)
    members = [np.flatnonzero(load.parents == i) for i in range(len(group_weights))]
    inside = np.zeros(len(load.roles))
    shares = np.zeros(len(group_weights))
    decisions = violations = 0
    quantum = 1e-11
    tasks: list[tuple[int, int]] = []

    def charge(i: int, sign: int) -> None:
        held[i] += sign * np.array([cpus[i], mem[i]])
        groups[load.parents[i]] += sign * np.array([cpus[i], mem[i]])
        inside[i] = (held[i] / totals).max() / load.weights[i]
        shares[load.parents[i]] = (groups[load.parents[i]] / totals).max() / group_weights[load.parents[i]]

    for _ in range(10 if short else 60):
        placed = engine.tick(BATCH)
        for task, role in zip(placed.task.tolist(), placed.role.tolist(), strict=True):
            i = row[role]
            group = load.parents[i]
            late = inside[members[group]].min() < inside[i] - quantum or shares.min() < shares[group] - quantum
            violations += bool(late)
            decisions += 1
            charge(i, 1)
            tasks.append((task, i))
        load.random.shuffle(tasks)
        ended, tasks = tasks[: BATCH // 3], tasks[BATCH // 3 :]
        engine.release([task for task, _ in ended])
        for _, i in ended:
            charge(i, -1)
    return [
        Measure(
            name="decisions that passed over a sibling with a smaller share", unit="", runs=(violations,), budget=0,
            note=f"{decisions:,} decisions, {len(load.roles):,} roles waiting all the time",
        )
    ]  # fmt: skip


def measure_packing(short: bool) -> list[Measure]:
    """How full the cluster is when the first demand that some empty node would hold is refused."""
    first, first_plain = [], []
    for seed in range(1 if short else 3):
        load = Load(BEST, nodes=2000 if short else 10_000, scale=4 if short else 1)
        load.random = np.random.default_rng(seed)
        step = 500 if short else 2000
        any_at = plain_at = 0.0
        deaths = 1  # the one that never fits
        while not plain_at:
            load.submit(step)
            load.engine.tick()
            if load.engine.counts.found_dead > deaths:
                deaths = load.engine.counts.found_dead
                any_at = any_at or load.used()
                if any(load.engine.explain(cls).fits == 0 for cls in load.plain):
                    plain_at = load.used()
        first.append(100 * any_at)
        first_plain.append(100 * plain_at)
    note = "cpus are the bottleneck; the mix of 48 shapes, 10% constrained, 2% GPUs"
    return [
        Measure(name=name, unit="%", runs=tuple(runs), budget=98, at_least=True, note=note)
        for name, runs in (
            ("cpus allocated before the first refusal", first),
            ("cpus allocated before the first refusal of a demand without constraints", first_plain),
        )
    ]


def measure_ablations(short: bool) -> list[Measure]:
    """The same pairs with one means after the other turned off."""
    found = []
    variants = {
        "all means": Tuning(),
        "without remembering the last node": Tuning(remember=False),
        "without cells, each search an exact pass": Tuning(walk=0),
        "without remembering either": Tuning(walk=0, remember=False),
        "dead classes tried everywhere after each release": Tuning(retest=False),
    }
    for name, tuning in variants.items():
        load = Load(BEST, nodes=2000 if short else 10_000, scale=4, tuning=tuning)
        load.fill()
        swap(load, 2, BATCH)
        runs = tuple(swap(load, 3 if short else 8, BATCH)[0] for _ in range(3))
        found.append(Measure(name=f"pairs, {BEST}, {name}", unit="/s", runs=runs))
    return found


PARTS: dict[str, Callable[[bool], list[Measure]]] = {
    "pairs": measure_pairs,
    "groups": measure_groups,
    "fill": measure_fill,
    "scaling": measure_scaling,
    "fairness": measure_fairness,
    "packing": measure_packing,
    "ablations": measure_ablations,
}


def measure(*, short: bool, parts: tuple[str, ...] = tuple(PARTS)) -> list[Measure]:
    found = []
    if COMPILES:
        note = "the first run takes machine code from Numba's cache where it is there"
        found.append(Measure(name="warm-up of the compiled form", unit="s", runs=(warm(), warm()), note=note))
    for part in parts:
        found += PARTS[part](short)
        gc.collect()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.bench_engine", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"any of {', '.join(PARTS)}; all when none is named")
    parser.add_argument("--short", action="store_true", help="fewer and smaller runs")
    options = parser.parse_args()
    print(show(measure(short=options.short, parts=tuple(options.parts) or tuple(PARTS))))


if __name__ == "__main__":
    main()
