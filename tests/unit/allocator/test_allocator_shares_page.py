"""The worked numbers of docs/operate/shares.md are what the allocator computes."""

import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from corral.allocator.allocator import Allocator
from corral.allocator.view import AgentView, Hold, HoldKind, Settings, WantView
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, normal, scalar
from corral.model.role import RoleSettings, line_of

PAGE = Path(__file__).parents[3] / "docs/operate/shares.md"
BLOCKS = re.findall(r"```shares\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def amounts(words: list[str]) -> Resources:
    return normal(scalar(name, float(n)) for name, n in (word.split("=") for word in words if is_amount(word)))


def is_amount(word: str) -> bool:
    return word.partition("=")[0] in ("cpus", "mem", "disk", "gpus")


def options(words: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (w.partition("=") for w in words if not is_amount(w))}


class Cluster:
    """What the lines of one example do."""

    def __init__(self) -> None:
        self.allocator = Allocator()
        self.now = 1000.0
        self.wants = 0
        self.running: dict[str, Hold] = {}

    def do(self, line: str) -> None:
        verb, *words = line.split()
        match verb:
            case "agents":
                for i in range(int(words[0])):
                    view = AgentView(id=AgentId(f"a{i}"), hostname=f"h{i}", total=amounts(words[1:]))
                    self.allocator.set_agent(view)
            case "headroom":
                self.allocator.set_settings(Settings(headroom=amounts(words)))
            case "role":
                self.allocator.set_role(words[0], role_of(options(words[1:])))
            case "want":
                self.want(words[0], int(words[1]), amounts(words[2:]), options(words[2:]))
            case "end":
                for key in [k for k, hold in self.running.items() if hold.role == words[0]][: int(words[1])]:
                    self.end(key)
            case "wait":
                self.allocator.run(self.now)
                self.now += float(words[0])
            case "run":
                self.run()
            case "=>":
                told = dict(part.strip().split() for part in line[2:].split(","))
                assert self.counts(told) == {name: int(n) for name, n in told.items()}, line
            case _:
                raise AssertionError(f"the page has the line {line!r}, which means nothing")

    def want(self, role: str, count: int, resources: Resources, given: dict[str, str]) -> None:
        self.wants += 1
        want = Want(
            id=WantId(f"w{self.wants}"), role=role, count=count, resources=resources,
            priority=int(given.get("priority", 0)), revocable="revocable" in given, gang=int(given.get("gang", 0)),
            run_s=float(given["run_s"]) if "run_s" in given else None,
        )  # fmt: skip
        self.allocator.set_want(WantView(want=want, framework_id=FrameworkId(role), missing=count, since_at=self.now))

    def run(self) -> None:
        """Decide until nothing more comes of it; what is evicted has ended by the next decision."""
        for _ in range(50):
            self.now += 1
            found = self.allocator.run(self.now)
            for grant in found.grants:
                hold = msgspec.structs.replace(
                    self.allocator.book.holds[grant.key].hold, key=f"task/{grant.key}", kind=HoldKind.TASK
                )
                self.allocator.hold(hold, instead_of=grant.key)
                self.running[hold.key] = hold
            for each in found.evictions:
                self.end(each.key)
            self.allocator.invariants()
            if not found.grants and not found.evictions:
                return
        raise AssertionError("the example never comes to rest")

    def end(self, key: str) -> None:
        self.allocator.release(key)
        del self.running[key]

    def counts(self, told: dict[str, str]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for hold in self.running.values():
            names = [*line_of(hold.role), f"{hold.role}@{hold.priority}"]
            found.update(name for name in names if name in told)
        shown = sum(found[name] for name in told if "/" not in name and "@" not in name)
        assert shown == len(self.running), f"{shown} tasks are told, {len(self.running)} run"
        return {name: found[name] for name in told}


def role_of(given: dict[str, str]) -> RoleSettings:
    def bundle(name: str) -> Resources:
        return amounts([part.replace(":", "=") for part in given.get(name, "").split(",") if part])

    return RoleSettings(
        weight=float(given.get("weight", 1)), guarantee=bundle("guarantee"), limit=bundle("limit"),
        max_tasks=int(given["max_tasks"]) if "max_tasks" in given else None,
        half_life_s=float(given["half_life"]) if "half_life" in given else None,
    )  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_page_tells_what_the_allocator_computes(block: str) -> None:
    cluster = Cluster()
    for line in block.splitlines():
        cluster.do(line)


def test_the_page_has_examples_with_answers() -> None:
    assert len(BLOCKS) >= 10
    assert all("=>" in block for block in BLOCKS)
