"""What the scheduler of the replicated store answers when the cluster tells of its members, without any cluster."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).resolve().parents[3] / "examples" / "replicated_store.py"
_SPEC = importlib.util.spec_from_file_location("replicated_store", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
example = importlib.util.module_from_spec(_SPEC)
sys.modules["replicated_store"] = example
_SPEC.loader.exec_module(example)

AGENT = {"value": "a1"}
FREE = [
    {"name": "cpus", "scalar": {"value": 4.0}},
    {"name": "mem", "scalar": {"value": 512.0}},
    {"name": "disk", "scalar": {"value": 512.0}},
    {"name": "ports", "ranges": {"range": [{"begin": 31000, "end": 31009}]}},
]


class Deaf(example.Store):  # type: ignore[name-defined, misc]
    """A store whose calls are kept, not sent."""

    def __init__(self, file: Path) -> None:
        super().__init__("http://nowhere", file)
        self.calls: list[tuple[str, Any]] = []

    def call(self, kind: str, body: Any) -> None:
        self.calls.append((kind, body))

    def offer(self, resources: list[dict[str, Any]], agent: dict[str, str] = AGENT) -> list[str]:
        """What is done with it: the types of operations, for launches the member's number."""
        offer = {"id": {"value": "o"}, "agent_id": agent, "hostname": "host", "resources": resources}
        self.handle({"type": "OFFERS", "offers": {"offers": [offer]}})
        done = []
        for operation in self.calls[-1][1]["operations"]:
            for info in operation.get("launch", {}).get("task_infos", ()):
                done.append(info["task_id"]["value"].split(".")[1])
        return done

    def tell(self, task_id: str, state: str, agent: dict[str, str] = AGENT) -> list[str]:
        """The calls that the news makes."""
        since = len(self.calls)
        status = {"task_id": {"value": task_id}, "state": state, "agent_id": agent}
        self.handle({"type": "UPDATE", "update": {"status": status}})
        return [kind for kind, _ in self.calls[since:]]

    def tasks(self) -> list[str | None]:
        return [self.places[number]["task"] for number in sorted(self.places)]


def kept_of(number: str, port: int = 31000) -> list[dict[str, Any]]:
    """What is offered of a member that has ended."""
    plain, kept = example.resources_of(number, port)
    return [*(r for r in plain if r["name"] != "disk"), kept]


@pytest.fixture
def store(tmp_path: Path) -> Deaf:
    store = Deaf(tmp_path / "store.json")
    assert store.offer(FREE) == ["0", "1", "2"]
    return store


@pytest.fixture
def whole(store: Deaf) -> Deaf:
    for task_id in store.tasks():
        assert task_id is not None
        assert store.tell(task_id, "TASK_RUNNING") == []
    return store


def test_a_member_that_was_thought_lost_is_taken_up_again_when_its_task_is_told_of(whole: Deaf) -> None:
    task_id = whole.tasks()[1]
    assert task_id is not None
    assert whole.tell(task_id, "TASK_LOST") == ["REVIVE"]
    assert whole.tasks()[1] is None
    assert whole.tell(task_id, "TASK_RUNNING") == []
    assert whole.tasks()[1] == task_id
    assert len(whole.alive) == 3
    assert json.loads(whole.file.read_text())["places"] == whole.places


def test_a_member_on_a_silent_agent_is_awaited(whole: Deaf) -> None:
    task_id = whole.tasks()[1]
    assert task_id is not None
    assert whole.tell(task_id, "TASK_UNREACHABLE") == []
    assert whole.offer(FREE) == [], "its data is there"
    assert whole.tell(task_id, "TASK_RUNNING") == []
    assert sorted(whole.alive) == ["0", "1", "2"]


def test_where_a_volume_is_offered_its_member_is_started_whatever_is_remembered_of_it(whole: Deaf) -> None:
    before = whole.tasks()[1]
    assert before is not None
    assert whole.offer(kept_of("1")) == ["1"], "nobody told of its end"
    assert whole.tell(before, "TASK_FAILED") == [], "it has been followed already"
    assert whole.tasks()[1] not in (None, before)
    whole.places.clear()
    assert whole.offer(kept_of("2", 31007)) == ["2"], "the state file was lost"
    assert whole.places["2"]["address"] == "host:31007"
    assert whole.offer(kept_of("2"), {"value": "a2"}) == [], "a volume that it has left"


@pytest.mark.parametrize("state", ["TASK_LOST", "TASK_DROPPED", "TASK_ERROR", "TASK_UNKNOWN"])
def test_a_member_that_never_began_is_started_anywhere(store: Deaf, state: str) -> None:
    task_id = store.tasks()[1]
    assert task_id is not None
    assert store.tell(task_id, "TASK_STAGING") == []
    assert store.tell(task_id, state) == ["REVIVE"]
    assert store.offer(FREE, {"value": "a2"}) == ["1"]
    assert store.places["1"]["agent"] == "a2"
    assert store.tell(task_id, "TASK_RUNNING") == [], "of where it is no more"
    assert store.tasks()[1] != task_id


@pytest.mark.parametrize("state", ["TASK_LOST", "TASK_GONE", "TASK_FAILED", "TASK_KILLED", "TASK_UNKNOWN"])
def test_a_member_that_has_data_is_started_nowhere_else(whole: Deaf, state: str) -> None:
    task_id = whole.tasks()[1]
    assert task_id is not None
    assert whole.tell(task_id, state) == ["REVIVE"]
    assert whole.offer(FREE, {"value": "a2"}) == []
    assert whole.offer(kept_of("1")) == ["1"]


def test_members_of_which_nothing_is_known_are_asked_for_until_somebody_tells(whole: Deaf) -> None:
    subscribed = {"framework_id": {"value": "f"}, "heartbeat_interval_seconds": 15.0}
    whole.handle({"type": "SUBSCRIBED", "subscribed": subscribed})
    assert [len(body["tasks"]) for kind, body in whole.calls if kind == "RECONCILE"] == [3]
    first, second, third = whole.tasks()
    assert first is not None
    assert third is not None
    whole.tell(first, "TASK_RUNNING")
    whole.tell(third, "TASK_RUNNING")
    whole.handle({"type": "HEARTBEAT"})
    assert whole.calls[-1] == ("RECONCILE", {"tasks": [{"task_id": {"value": second}}]})
