"""The page that says what happens when something dies is what the harness wrote, and has every fault that it does."""

from tests.fault.real import page
from tests.fault.real.faults import FAULTS
from tests.fault.real.harness import Result, choose


def test_the_page_is_what_the_results_make_of_it() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(page.read_results())


def test_each_fault_has_a_result_and_nothing_was_lost() -> None:
    found = page.read_results()
    assert [result.key for result in found] == [fault.key for fault in FAULTS]
    assert [result.key for result in found if result.lost] == []


def test_each_fault_stands_in_a_chapter_and_each_chapter_has_one() -> None:
    assert {fault.who for fault in FAULTS} == set(page.CHAPTERS)


def test_a_loss_is_shown() -> None:
    result = Result(key=FAULTS[0].key, happened="it went", seconds=2.04, lost=("task t1 is gone",))
    assert page.table([result]).splitlines()[-1].endswith("| it went | 2.0 | task t1 is gone |")


def test_a_smaller_cluster_is_spared_what_it_cannot_have() -> None:
    keys = {fault.key for fault in choose([], masters=1, members=0, docker=False)}
    assert "agent-killed" in keys
    assert not keys & {"dockerd-killed", "quorum-lost"}
