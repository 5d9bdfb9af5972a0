"""What the agent knows of its standalone containers.

Rule: each has a name that its maker chose and an inner one that was never used before, so that a second one of the same
name has nothing of the first.
"""

from typing import TYPE_CHECKING

from corral.agent.spec import Stage
from corral.agent.staged import Staged
from corral.agent.standalone_spec import StandaloneRecord, StandaloneRun
from corral.model.execution import Exit, Launched
from corral.model.ids import ContainerId
from corral.runtime.core import Effect, Persist

if TYPE_CHECKING:
    from corral.agent.execution import Plan


class Standalone(Staged):
    """One standalone container.

    Shapes: `launching` is who waits for its start, `waiting` who for its end. `unsettled` when it is from the records
    of an earlier agent process and its runtime has not been heard yet.
    """

    __slots__ = (
        "doomed", "exit", "id", "info", "inner", "launched", "launching", "plan", "runtime", "sandbox",
        "unsettled", "waiting",
    )  # fmt: skip

    def __init__(self, record: StandaloneRecord) -> None:
        super().__init__()
        self.id = ContainerId(record.info.task_id)
        self.info = record.info
        self.inner = record.inner
        self.runtime = record.runtime
        self.sandbox = record.sandbox
        self.launched: Launched | None = None
        self.exit: Exit | None = None
        self.doomed = False
        self.plan: Plan | None = None
        self.unsettled = False
        self.launching: int | None = None
        self.waiting: list[int] = []

    def save(self) -> list[Effect]:
        record = StandaloneRecord(self.info, self.inner, self.runtime, self.sandbox)
        return [Persist(f"containers/{self.id}", record), self.save_run()]

    def save_run(self) -> Persist:
        return Persist(f"container-runs/{self.id}", StandaloneRun(self.stage, self.launched, self.exit, self.doomed))

    def erase(self) -> list[Effect]:
        return [Persist(f"containers/{self.id}", None), Persist(f"container-runs/{self.id}", None)]

    def take_up(self, run: StandaloneRun) -> None:
        """Go on from where the record says that an earlier process was."""
        self.stage = run.stage
        self.launched = run.launched
        self.exit = run.exit
        self.doomed = run.doomed
        self.unsettled = self.live


class StandaloneContainers:
    """All there are, by their names and by their inner ones, in the order in which they came."""

    __slots__ = ("by_inner", "found")

    def __init__(self) -> None:
        self.found: dict[ContainerId, Standalone] = {}
        self.by_inner: dict[ContainerId, Standalone] = {}

    def add(self, one: Standalone) -> None:
        self.found[one.id] = one
        self.by_inner[one.inner] = one

    def forget(self, one: Standalone) -> list[Effect]:
        del self.found[one.id]
        del self.by_inner[one.inner]
        return one.erase()

    def invariants(self) -> None:
        assert len(self.found) == len(self.by_inner), "two containers share a name"
        for id, one in self.found.items():
            assert one.id == id
            assert self.by_inner.get(one.inner) is one, f"container {id} is not found by its inner name"
            assert one.live or not (one.waiting or one.launching is not None), f"nobody answers for container {id}"
            assert one.live == (one.exit is None), f"container {id} has ended in an unknown way"
            assert one.stage is not Stage.RUNNING or one.launched is not None, f"container {id} runs where"
