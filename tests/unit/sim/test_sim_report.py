"""The report: figures as people read them, plots with round axes, a page that trusts no name and fetches nothing."""

import re
from html.parser import HTMLParser

import pytest
from first_fit import FirstFit

from corral.allocator.view import AgentView
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resource
from corral.sim.compare import Asked, Comparison, compare
from corral.sim.report import ROLE_COLUMNS, figures, role_rows, seconds, write_report
from corral.sim.trace import AgentCame, Arrived, Begin, Event
from corral.sim.workload import from_trace

NASTY = "<script>alert('x')</script>&\""


def compared(*policies: str, source: str = "a test", role: str = "ads", instances: int = 30) -> Comparison:
    total = (Resource(name="cpus", milli=4000), Resource(name="gpus", milli=2000), Resource(name="mem", milli=9000))
    events: list[Event] = [
        Begin(source=source),
        AgentCame(at=0.0, agent=AgentView(id=AgentId("a1"), hostname="a1", total=total)),
    ]
    for n in range(instances):
        resources = (Resource(name="cpus", milli=1000), Resource(name="gpus", milli=500))
        want = Want(id=WantId(f"w{n}"), role=role if n % 2 else "etl", count=1, resources=resources)
        events.append(Arrived(at=n * 60.0, framework_id=FrameworkId("f"), want=want, run_s=400.0))
    asked = Asked(trace="unread", policies=policies, seed=5)  # type: ignore[arg-type]
    return compare(asked, from_trace(events), FirstFit)


class Page(HTMLParser):
    """What is asked of a browser. Shapes: `fetches` are attributes that would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.fetches: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.fetches += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def test_the_page_is_whole_fetches_nothing_and_runs_nothing() -> None:
    page = Page(write_report(compared("spread", "binpack")))
    assert page.open == []
    assert page.fetches == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert page.tags.count("svg") == 9, "three resources, waiting, running, two of fragmentation, two of shares"
    assert {"a test", "spread", "binpack", "etl", "ads", "gpus: fragmentation"} <= set(page.texts)


def test_whatever_stands_in_a_trace_is_text_on_the_page() -> None:
    page = Page(write_report(compared(source=NASTY, role=NASTY)))
    assert "script" not in page.tags
    assert NASTY in page.texts


def test_the_same_comparison_makes_the_same_page() -> None:
    one = compared("spread")
    assert write_report(one) == write_report(one)


def test_figures_have_one_value_for_each_run() -> None:
    found = {row.name: row.values for row in figures(compared("spread", "binpack"))}
    assert found["placed"] == ("30", "30")
    assert found["never placed"] == ("0", "0")
    assert re.fullmatch(r"\d+\.\d %; 100\.0 %", found["gpus allocated"][0])
    assert len(set(found["decisions"])) == 1, "the allocator of this test knows one policy"
    assert set(found) >= {"wait p50", "wait p90", "wait p99", "longest wait", "cpus fragmented", "short of fair shares"}


def test_roles_are_listed_for_each_run() -> None:
    rows = role_rows(compared("spread", "binpack"))
    assert [row[:3] for row in rows] == [
        ("spread", "ads", "15"), ("spread", "etl", "15"), ("binpack", "ads", "15"), ("binpack", "etl", "15"),
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(ROLE_COLUMNS)}


def points(page: str) -> list[tuple[float, float]]:
    found = re.findall(r'points="([^"]+)"', page)
    return [tuple(map(float, pair.split(","))) for piece in found for pair in piece.split()]  # type: ignore[misc]


@pytest.mark.parametrize("instances", [1, 2, 300])
def test_lines_stay_inside_their_plots_whatever_there_was(instances: int) -> None:
    found = points(write_report(compared(instances=instances)))
    assert found
    assert all(51.9 <= x <= 630.1 and 9.9 <= y <= 194.1 for x, y in found)


def test_axes_are_labelled_with_round_numbers_and_times() -> None:
    page = Page(write_report(compared(instances=300)))
    assert {"0", "2 h", "4 h"} <= set(page.texts)
    assert {"0 %", "50 %", "100 %"} <= set(page.texts)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0 s"), (0.25, "0.25 s"), (99.4, "99.4 s"), (119.0, "119 s"), (120.0, "2.0 min"),
     (7200.0, "2.0 h"), (200_000.0, "2.3 d")],
)  # fmt: skip
def test_times_are_written_in_the_unit_that_suits(value: float | None, text: str) -> None:
    assert seconds(value) == text
