"""Which form of the engine a process uses, and how it is made ready before anybody waits for it."""

from importlib.util import find_spec

from corral.allocator.allocator import Allocator
from corral.allocator.engine import Mode
from corral.allocator.view import AgentView, FrameworkView, Hold, View, WantView
from corral.lib.errors import Unavailable
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, ports, scalar
from corral.model.role import RoleSettings


def choose_mode(compiled: str, name: str = "kernel.compiled") -> Mode:
    """The form of the engine for a word of the configuration: `yes`, `no`, or `auto`, which is yes where it can be.

    Errors: `Unavailable` for `yes` where Numba is not installed.
    """
    if compiled == "no":
        return Mode.PLAIN
    if find_spec("numba") is not None:
        return Mode.COMPILED
    if compiled == "auto":
        return Mode.PLAIN
    raise Unavailable(
        f"{name} is yes, which wants the package numba, and it is not installed; "
        f"install corral[speed], or set {name} to auto or no"
    )


def warm(mode: Mode) -> None:
    """Have all that an allocator calls compiled; it takes seconds, or minutes the first time on a node."""
    if mode is not Mode.COMPILED:
        return
    node: Resources = (scalar("cpus", 4.0), scalar("gpus", 2.0), scalar("mem", 4096.0), ports((31000, 31099)))
    one: Resources = (scalar("cpus", 1.0), scalar("mem", 64.0))
    framework = FrameworkId("f")
    shapes = {
        "spread": Want(id=WantId("spread"), role="a/b", count=2, resources=one, ports=1, group="g"),
        "gpu": Want(id=WantId("gpu"), role="a", count=1, resources=(*one, scalar("gpus", 0.5)), strategy="gpu"),
        "gang": Want(id=WantId("gang"), role="a", count=2, resources=one, gang=2, strategy="binpack"),
        "never": Want(id=WantId("never"), role="b", count=1, resources=(scalar("cpus", 100.0),), strategy="aligned"),
        "lent": Want(id=WantId("lent"), role="b", count=1, resources=one, revocable=True, strategy="random"),
    }
    allocator = Allocator.of(
        View(
            agents=[AgentView(id=AgentId(name), hostname=name, total=node) for name in ("x", "y")],
            roles={"a": RoleSettings(guarantee=one, limit=node, max_tasks=9, half_life_s=60.0)},
            frameworks=[FrameworkView(id=framework, coarse_roles=("c",), gpus=True)],
            wants=[
                WantView(want=want, framework_id=framework, missing=want.count, since_at=0.0)
                for want in shapes.values()
            ],
            holds=[Hold(key="t", framework_id=framework, role="a", agent_id=AgentId("x"), resources=one)],
        ),
        mode,
    )
    for now in (1.0, 2.0):
        for grant in allocator.run(now, 1).grants:
            allocator.release(grant.key)
    for want_id in shapes.values():
        allocator.explain(framework, want_id.id)
    allocator.release("t")
    allocator.remove_framework(framework)
    allocator.remove_role("a")
    allocator.set_agent(AgentView(id=AgentId("x"), hostname="x", total=one, ineligible="away"))
    allocator.remove_agent(AgentId("y"))
    allocator.run(100.0)
