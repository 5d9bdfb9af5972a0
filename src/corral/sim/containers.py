"""A node's task runtime in virtual time: containers that outlive the agent, as with Docker.

What a container does comes from a function of its execution, so a test decides which tasks fail, end or hang. It counts
every start, and a task that ever runs twice is an error at once.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from corral.lib.contact import LATER_S
from corral.model.execution import Bound, Execution, Exit, Found, Launched
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.sim.world import EPOCH_S, World

SIGTERM = 15
SIGKILL = 9


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What one container does. Shapes: `run_s` None runs until it is killed; `fails` is why it does not start.

    Units: seconds; `term_s` is how long it takes to end after SIGTERM. Its health checks pass until `sick_after_s`. It
    needs `cpus`, from `busy_after_s` on `busy_cpus`, and `mem_mb` of memory. It leaves `result` in its result file.
    """

    start_s: float = 0.05
    run_s: float | None = None
    code: int = 0
    term_s: float = 0.01
    result: bytes | None = None
    fails: str = ""
    sick_after_s: float | None = None
    cpus: float = 0.0
    busy_after_s: float | None = None
    busy_cpus: float = 0.0
    mem_mb: float = 0.0


Behave = Callable[[Execution], Behaviour]


def run_for_ever(execution: Execution) -> Behaviour:
    return Behaviour()


class Container:
    """One container, from the order to start it until it is removed.

    Shapes: `heard` once an agent knows that it runs.
    """

    __slots__ = (
        "aborted", "behaviour", "ended_at", "execution", "exit", "fenced", "heard", "launched", "started_at", "waiters",
    )  # fmt: skip

    def __init__(self, execution: Execution, behaviour: Behaviour) -> None:
        self.execution = execution
        self.behaviour = behaviour
        self.launched: Launched | None = None
        self.exit: Exit | None = None
        self.aborted = False
        self.fenced = False
        self.heard = False
        self.started_at = 0.0
        self.ended_at: float | None = None
        self.waiters: list[Callable[[Exit], None]] = []

    @property
    def runs(self) -> bool:
        return self.launched is not None and self.exit is None


class Ledger:
    """All that ever ran in a cluster, by framework and task: the witness against doubled tasks.

    Shapes: `on_start` and `on_end`, if set, see each start and each end that was not a loss of power.
    """

    def __init__(self) -> None:
        self.runs: dict[tuple[FrameworkId, TaskId], list[tuple[str, Container]]] = {}
        self.on_start: Callable[[str, Container], None] | None = None
        self.on_end: Callable[[str, Container], None] | None = None

    def enter(self, node: str, container: Container) -> None:
        key = (container.execution.framework_id, container.execution.task_id)
        runs = self.runs.setdefault(key, [])
        assert not runs, f"task {key[1]} runs a second time on {node}, first on {runs[0][0]}"
        if self.on_start is not None:
            self.on_start(node, container)
        runs.append((node, container))

    def running(self) -> list[Container]:
        return [container for runs in self.runs.values() for _, container in runs if container.runs]

    def exits(self) -> dict[TaskId, Exit]:
        """How each ended task ended."""
        return {
            task_id: container.exit
            for (_, task_id), runs in self.runs.items()
            for _, container in runs
            if container.exit is not None
        }


class SimRuntime:
    """The containers of one node."""

    def __init__(self, world: World, node: str, ledger: Ledger, behave: Behave) -> None:
        self.world = world
        self.node = node
        self.behave = behave
        self.containers: dict[ContainerId, Container] = {}
        self._ledger = ledger
        self._pids = 1000
        self.powerless_at = 0.0
        self.contact_at: float | None = None

    def start(self, execution: Execution, done: Callable[[Launched | str], None]) -> None:
        """Start it some time later; `done` gets what came of it, a text when it failed."""
        container_id = execution.container_id
        known = self.containers.get(container_id)
        if known is None:
            known = self.containers[container_id] = Container(execution, self.behave(execution))
            self.world.after(self.world.draw_s(known.behaviour.start_s), partial(self._come_up, known, done))
        elif known.launched is not None:
            done(known.launched)
        else:
            self.world.after(known.behaviour.start_s, lambda: self.start(execution, done))

    def hear(self, container_id: ContainerId) -> None:
        """The agent has been told that the container runs."""
        if container_id in self.containers:
            self.containers[container_id].heard = True

    def is_well(self, container_id: ContainerId) -> bool:
        """Whether a health check of the container passes now."""
        container = self.containers.get(container_id)
        if container is None or not container.runs:
            return False
        sick_after_s = container.behaviour.sick_after_s
        return sick_after_s is None or self.world.now - container.started_at < sick_after_s

    def measure(self, container_id: ContainerId) -> tuple[float, float] | None:
        """Seconds of processor time that a container has used, and its MB of memory; None when it does not run."""
        container = self.containers.get(container_id)
        if container is None or not container.runs:
            return None
        behaviour, age_s = container.behaviour, self.world.now - container.started_at
        calm_s = age_s if behaviour.busy_after_s is None else min(age_s, behaviour.busy_after_s)
        return behaviour.cpus * calm_s + behaviour.busy_cpus * (age_s - calm_s), behaviour.mem_mb

    def _come_up(self, container: Container, done: Callable[[Launched | str], None]) -> None:
        execution, behaviour = container.execution, container.behaviour
        cut_off = execution.bound is not None and self._left_s(container, execution.bound) <= 0.0
        if container.aborted or behaviour.fails or cut_off:
            self.containers.pop(execution.container_id, None)
            done("the start was taken back" if container.aborted else behaviour.fails or "no master has answered")
            return
        self._pids += 1
        container.launched = Launched(container_id=execution.container_id, pid=self._pids)
        container.started_at = self.world.now
        self._ledger.enter(self.node, container)
        self.world.tell(self.node, f"runs {execution.task_id} in {execution.container_id[:8]}")
        if behaviour.run_s is not None:
            self.world.after(behaviour.run_s, lambda: self._end(container, code=behaviour.code))
        if execution.bound is not None:
            self._look_at_bound(container, execution.bound)
        done(container.launched)

    def _left_s(self, container: Container, bound: Bound) -> float:
        since = float("-inf") if bound.strict else container.started_at or self.world.now
        at = since if self.contact_at is None else max(since, EPOCH_S + self.contact_at)
        return at + bound.stop_after_s + LATER_S - self.world.now

    def _look_at_bound(self, container: Container, bound: Bound) -> None:
        """What a supervisor does without the agent."""
        if not container.runs:
            return
        left_s = self._left_s(container, bound)
        if left_s > 0.0:
            self.world.after(left_s + 0.001, lambda: self._look_at_bound(container, bound))
            return
        container.fenced = True
        self.world.tell(self.node, f"fences {container.execution.task_id}")
        self.kill(container.execution.container_id, bound.grace_s)

    def abort(self, container_id: ContainerId) -> bool:
        """Take back a start under way; False when there is none."""
        container = self.containers.get(container_id)
        if container is None or container.launched is not None:
            return False
        container.aborted = True
        return True

    def wait(self, container_id: ContainerId, done: Callable[[Exit], None]) -> bool:
        """Call `done` at its end, or soon when it has ended; False when nobody knows it."""
        container = self.containers.get(container_id)
        if container is None:
            return False
        if container.exit is not None:
            exit = container.exit
            self.world.after(self.world.draw_s(0.001), lambda: done(exit))
        else:
            container.waiters.append(done)
        return True

    def left_by(self, container_id: ContainerId) -> bytes | None:
        """What a container has left in its result file."""
        container = self.containers.get(container_id)
        return None if container is None else container.behaviour.result

    def kill(self, container_id: ContainerId, grace_s: float) -> None:
        container = self.containers.get(container_id)
        if container is None or not container.runs:
            return
        term_s = container.behaviour.term_s
        if term_s <= grace_s:
            self.world.after(term_s, lambda: self._end(container, signal=SIGTERM))
        else:
            self.world.after(grace_s, lambda: self._end(container, signal=SIGKILL))

    def remove(self, container_id: ContainerId) -> None:
        container = self.containers.get(container_id)
        if container is not None and container.exit is not None:
            del self.containers[container_id]

    def discard(self, container_id: ContainerId) -> None:
        """End it and forget it, wherever it is."""
        container = self.containers.get(container_id)
        if container is None:
            return
        if container.launched is None:
            container.aborted = True
            return
        self._end(container, signal=SIGKILL)
        self.containers.pop(container_id, None)

    def recover(self) -> tuple[Found, ...]:
        for one in self.containers.values():
            one.heard = one.heard or one.launched is not None
        return tuple(
            Found(
                container_id=container_id,
                task_id=one.execution.task_id,
                framework_id=one.execution.framework_id,
                launched=one.launched,
                exit=one.exit,
            )
            for container_id, one in sorted(self.containers.items())
        )

    def lose_power(self) -> None:
        """Everything ends without anybody seeing how, as when a node is reset."""
        self.powerless_at = self.world.now
        self.contact_at = None
        for container in self.containers.values():
            container.aborted = True
            self._end(container, signal=SIGKILL, tell=False)
        self.containers.clear()

    def _end(
        self, container: Container, *, code: int | None = None, signal: int | None = None, tell: bool = True
    ) -> None:
        if not container.runs:
            return
        container.ended_at = self.world.now
        container.exit = Exit(
            container_id=container.execution.container_id, code=code, signal=signal, at=self.world.now,
            fenced=container.fenced,
        )  # fmt: skip
        self.world.tell(self.node, f"ends {container.execution.task_id} code={code} signal={signal}")
        waiters, container.waiters = container.waiters, []
        if tell and self._ledger.on_end is not None:
            self._ledger.on_end(self.node, container)
        if tell:
            for waiter in waiters:
                waiter(container.exit)
