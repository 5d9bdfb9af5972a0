"""The order in which a cluster is upgraded."""

import pytest

from corral.cli.upgrade import Process, plan_upgrade
from corral.lib.errors import Unavailable


def process(kind: str, name: str, version: str = "1", installed: str = "2", *, leads: bool = False) -> Process:
    return Process(kind, kind, f"http://{name}", "i", version, installed, leads)


def order(*processes: Process, force: bool = False) -> list[str]:
    return [step.process.url.removeprefix("http://") for step in plan_upgrade(processes, force=force)]


def test_standbys_come_first_then_the_leader_then_frameworks_and_agents() -> None:
    found = order(
        process("agent", "n2"), process("master", "m1", leads=True), process("agent", "n1"), process("master", "m3"),
        process("services", "s"), process("master", "m2"),
    )  # fmt: skip
    assert found == ["m2", "m3", "m1", "s", "n1", "n2"]


def test_what_runs_the_installed_version_is_left_alone_unless_forced() -> None:
    both = (process("master", "m1", "2", "2"), process("master", "m2", "1", "2"))
    assert order(*both) == ["m2"]
    assert order(*both, force=True) == ["m1", "m2"]


def test_an_interrupted_upgrade_goes_on_where_it_was() -> None:
    """Whatever prefix of the plan is done, the rest is what is planned next."""
    names = ["m2", "m3", "m1", "n1", "n2"]
    kinds = {"m1": "master", "m2": "master", "m3": "master", "n1": "agent", "n2": "agent"}
    for done in range(len(names) + 1):
        found = [process(kinds[n], n, "2" if n in names[:done] else "1", leads=n == "m1") for n in names]
        assert order(*found) == names[done:]


def test_nothing_is_touched_while_a_process_is_away() -> None:
    away = Process("master", "master", "http://m9", why_away="no master answers")
    with pytest.raises(Unavailable, match="m9: no master answers"):
        plan_upgrade([process("master", "m1"), away], force=True)


def test_a_version_that_is_not_known_is_renewed() -> None:
    assert order(process("master", "m1", "1", "")) == ["m1"]
