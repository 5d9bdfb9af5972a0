"""One source, one decision: plain Python and the arrays that are compiled; machine code is judged in contract."""

import subprocess
import sys
import warnings
from random import Random

import numpy as np
import pytest

from corral.allocator.engine import Engine, Mode, Tuning
from corral.allocator.engine.modes import load_kernels
from corral.lib.errors import Invalid, Unavailable
from corral.model.constraints import HOSTNAME, Constraint, Operator

SHAPES = [(250, 256), (500, 2048), (700, 700), (1000, 1024), (2000, 8192), (4000, 1024), (8000, 16384), (500_000, 1)]


def zone(operator: Operator, *values: str) -> Constraint:
    return Constraint(field="zone", operator=operator, values=values)


def build(engine: Engine, random: Random, nodes: int) -> tuple[list[int], list[int]]:
    """A mixed cluster; returns its roles and classes."""
    for i in range(nodes):
        total = {"cpus": random.choice([8, 16, 64]) * 1000, "mem": random.choice([32, 64]) * 1_024_000}
        total |= {"disk": 100_000, "ports": 1_000_000} | ({"gpus": 4000} if i % 9 == 0 else {})
        engine.add_node(total, f"h{i}", {"zone": f"z{i % 4}", "rack": f"r{i % 11}"})
    roles = []
    for i in range(40):
        roles.append(
            engine.add_role(
                f"t{i % 7}/x{i}" if i % 5 else f"s{i}",
                weight=random.choice([0.3, 1.0, 2.0]),
                guarantee={"cpus": 9000} if i % 11 == 0 else None,
                limit={"cpus": 30_000, "mem": 99_000_000} if i % 6 == 0 else None,
                max_tasks=20 if i % 13 == 0 else None,
                priority=i % 17 == 0,
            )
        )
    classes = []
    for i, (cpus, mem) in enumerate(SHAPES):
        shape = {"cpus": cpus, "mem": mem * 1000}
        strategy = "spread" if i % 3 == 0 else "binpack"
        classes.append(engine.intern_class(shape, strategy=strategy))
        classes.append(engine.intern_class(shape | {"gpus": 1000}, strategy=strategy))
        for constraint in (zone(Operator.EQUAL, "z1"), zone(Operator.UNEQUAL, "z0"), zone(Operator.IN, "z2", "z3")):
            classes.append(engine.intern_class(shape, [constraint], strategy))
        rack = Constraint(field="rack", operator=Operator.MATCH, values=("r[0-3]",))
        for j in range(3):
            host = Constraint(field=HOSTNAME, operator=Operator.GLOB, values=(f"h{j}*",))
            classes.append(engine.intern_class(shape | {"disk": 50 + j}, [rack, zone(Operator.UNEQUAL, f"z{j}")]))
            classes.append(engine.intern_class(shape | {"disk": 90}, [host], strategy))
    assert len(classes) > 62, "the classes shall take more than one word"
    return roles, classes


def run(
    mode: Mode,
    seed: int,
    *,
    nodes: int,
    turns: int,
    tuning: Tuning = Tuning(),  # noqa: B008 - a constant
    cache: bool = False,
    becomes: dict[int, Mode] = {},  # noqa: B006 - a constant
) -> list[object]:
    """A long life; returns all that can be seen of it. Shapes: `becomes` is the form it takes before a turn."""
    random = Random(seed)
    engine = Engine(mode=mode, tuning=tuning, cache=cache)
    roles, classes = build(engine, random, nodes)
    running: list[int] = []
    seen: list[object] = []
    for turn in range(turns):
        if turn in becomes:
            engine.use(becomes[turn])
            engine.invariants()
        n = random.choice([1, 5, 40])
        engine.submit(
            random.choices(roles, k=n), random.choices(classes, k=n), random.choices([1, 2, 30], k=n), turn % 3
        )
        placements = engine.tick(random.choice([1, 7, 300]))
        running += placements.task.tolist()
        random.shuffle(running)
        ended = [running.pop() for _ in range(min(len(running), random.choice([0, 1, 5, 60])))]
        engine.release(np.array(ended, dtype=np.int64))
        if turn % 20 == 7:
            engine.set_eligible(random.randrange(nodes), bool(turn % 40 == 7))
        if turn % 50 == 9:
            engine.add_node({"cpus": 32_000, "mem": 64_000_000}, f"new{turn}", {"zone": "z1"})
            engine.intern_class(
                {"cpus": 100 + turn, "mem": turn}, [Constraint(field="rack", operator=Operator.GLOB, values=("r1*",))]
            )
        seen.append((engine.decision_hash(), engine.waiting, engine.running))
    engine.invariants()
    return [*seen, engine.counts, engine.free_by_node().tolist(), [engine.held(role) for role in roles]]


@pytest.mark.parametrize("seed", range(3))
def test_arrays_decide_as_plain_python(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # arrays tell of a number too large for them by a warning
        assert run(Mode.ARRAYS, seed, nodes=60, turns=90) == run(Mode.PLAIN, seed, nodes=60, turns=90)


@pytest.mark.parametrize("turn", [0, 1, 33, 89])
def test_an_engine_that_becomes_arrays_amid_its_life_decides_as_before(turn: int) -> None:
    changed = run(Mode.PLAIN, 7, nodes=60, turns=90, becomes={turn: Mode.ARRAYS})
    assert changed == run(Mode.PLAIN, 7, nodes=60, turns=90)


def test_an_engine_becomes_what_it_is_at_no_price_and_nothing_else_again() -> None:
    engine = Engine()
    engine.use(Mode.PLAIN)
    engine.use(Mode.ARRAYS)
    with pytest.raises(Invalid, match="the engine is arrays and cannot become plain; make another"):
        engine.use(Mode.PLAIN)


@pytest.mark.parametrize("tuning", [Tuning(walk=0), Tuning(walk=2, remember=False), Tuning(retest=False)])
def test_arrays_decide_as_plain_python_by_exact_passes(tuning: Tuning) -> None:
    here = run(Mode.ARRAYS, 9, nodes=40, turns=40, tuning=tuning)
    assert here == run(Mode.PLAIN, 9, nodes=40, turns=40, tuning=tuning)


def test_equal_lives_have_equal_hashes_and_others_do_not() -> None:
    assert run(Mode.PLAIN, 4, nodes=20, turns=30) == run(Mode.PLAIN, 4, nodes=20, turns=30)
    assert run(Mode.PLAIN, 4, nodes=20, turns=30)[29] != run(Mode.PLAIN, 5, nodes=20, turns=30)[29]


def test_a_plain_engine_imports_no_compiler() -> None:
    lines = "import sys; from corral.allocator.engine import Engine; Engine().tick(); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lines], check=False).returncode == 0


def test_without_the_compiler_the_compiled_form_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    load_kernels.cache_clear()
    with pytest.raises(Unavailable, match=r"corral\[speed\]"):
        Engine(mode=Mode.COMPILED, cache=True)
