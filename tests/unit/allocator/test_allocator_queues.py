"""What plain Python keeps in place of the columns of heaps: it forgets what is out of date, in time."""

from corral.allocator.engine import Engine, Held
from corral.allocator.engine.queues import SPARE

ROLES = 3


def waiting_engine() -> Engine:
    """Roles that all wait for what fits nowhere, and hold something."""
    engine = Engine()
    node = engine.add_node({"cpus": 8000, "mem": 8000})
    large = engine.intern_class({"cpus": 9000})
    small = engine.intern_class({"cpus": 1000})
    for name in range(ROLES):
        role = engine.add_role(f"r{name}")
        engine.hold([Held(role, node, (1000, 1000, 0, 0, 0))], [1])
        engine.submit(role, large)
        engine.submit(role, small)
    engine.tick()
    return engine


def test_numbers_out_of_date_do_not_pile_up_however_often_shares_change() -> None:
    engine = waiting_engine()
    held = [Held(engine.role(f"r{name}"), 0, (1, 1, 0, 0, 0)) for name in range(ROLES)]
    for n in range(400):
        engine.hold([held[n % ROLES]], [1 if n // ROLES % 2 else -1])
    heaps = engine._state.heaps
    queues = [*heaps.main.values(), *(each for found in heaps.starved.values() for each in found.values())]  # type: ignore[attr-defined]
    assert all(len(each) <= 2 * ROLES + SPARE + 1 for each in queues)
    engine.add_node({"cpus": 9000, "mem": 1})
    # The last change gave r0 a little more than the others.
    assert [engine.role_name(role) for role in engine.tick().role.tolist()] == ["r1"]


def test_many_classes_that_fit_nowhere_are_told_apart() -> None:
    engine = Engine()
    node = engine.add_node({"cpus": 100, "mem": 100})
    classes = [engine.intern_class({"cpus": 1000 + n}) for n in range(100)]
    for n, cls in enumerate(classes):
        engine.submit(engine.add_role(f"r{n % 7}"), cls)
    assert len(engine.tick()) == 0
    engine.invariants()
    engine.change_node(node, {"cpus": 1003, "mem": 100})
    assert engine.tick(1).cls.tolist() == classes[:1]
    engine.invariants()
