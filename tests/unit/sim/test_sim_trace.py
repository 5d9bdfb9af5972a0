"""A trace is read as it was written, and what is wrong in one is named by file and line."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.allocator.view import AgentView, Settings
from corral.lib.errors import Invalid, NotFound
from corral.model.constraints import Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resource, Resources, items, normal, ports
from corral.model.role import RoleSettings
from corral.sim.trace import (
    AgentCame,
    AgentLeft,
    Arrived,
    Begin,
    Ended,
    Event,
    RoleSet,
    RoleUnset,
    SettingsSet,
    Started,
    Withdrawn,
    is_trace,
    read_event,
    read_trace,
    write_event,
    write_trace,
)

names = st.text(alphabet="abcxyz/.-_ äß€", min_size=1, max_size=12)
moments = st.floats(0, 1e9, allow_nan=False)
counts = st.integers(1, 1000)


def bundles() -> st.SearchStrategy[Resources]:
    scalars = st.builds(Resource, name=st.sampled_from(["cpus", "mem", "gpus", "disk"]), milli=st.integers(1, 10**15))
    spans = st.builds(lambda low, more: (low, low + more), st.integers(1, 65535), st.integers(0, 500))
    ranges = st.builds(lambda found: ports(*found), st.lists(spans, min_size=1, max_size=3))
    sets = st.builds(items, st.just("bugs"), st.lists(st.sampled_from(["a", "b", "c"]), min_size=1))
    return st.lists(scalars | ranges | sets, max_size=4, unique_by=lambda r: r.name).map(normal)


constraints = st.builds(
    Constraint,
    field=names,
    operator=st.sampled_from(Operator),
    values=st.lists(names, max_size=3).map(tuple),
    count=st.none() | counts,
)
wants = st.builds(
    Want,
    id=names,
    role=names,
    count=counts,
    resources=bundles(),
    ports=st.integers(0, 5),
    fixed_ports=st.lists(st.integers(1, 65535), max_size=2).map(tuple),
    constraints=st.lists(constraints, max_size=2).map(tuple),
    strategy=st.sampled_from(["spread", "binpack"]),
    priority=st.integers(0, 100),
    group=names | st.just(""),
    group_size=st.integers(0, 9),
    runtime=st.sampled_from(["", "docker"]),
)
agents = st.builds(
    AgentView,
    id=names,
    hostname=names,
    total=bundles(),
    attributes=st.dictionaries(names | st.just("limit"), names, max_size=3),
    runtimes=st.lists(names, max_size=2).map(tuple),
    ineligible=names | st.just(""),
)
roles = st.builds(
    RoleSettings,
    weight=st.floats(0.1, 100),
    guarantee=bundles(),
    limit=st.just((Resource(name="cpus"),)) | bundles(),
    max_tasks=st.none() | counts,
    priority=st.integers(0, 1023),
    strategy=names | st.just(""),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Begin, source=names, start_at=moments),
    st.builds(AgentCame, at=moments, agent=agents),
    st.builds(AgentLeft, at=moments, agent_id=names),
    st.builds(RoleSet, at=moments, name=names, settings=roles),
    st.builds(RoleUnset, at=moments, name=names),
    st.builds(
        SettingsSet,
        at=moments,
        settings=st.builds(
            Settings,
            headroom=st.none() | st.just((Resource(name="cpus", milli=500),)) | st.just(()),
            evictions_per_minute=counts,
        ),
    ),
    st.builds(Arrived, at=moments, framework_id=names, want=wants, run_s=st.none() | moments),
    st.builds(Withdrawn, at=moments, framework_id=names, want_id=names, count=counts),
    st.builds(
        Started,
        at=moments,
        framework_id=names,
        task=names,
        agent_id=names,
        role=names,
        resources=bundles(),
        want_id=st.none() | names,
    ),
    st.builds(Ended, at=moments, framework_id=names, task=names, state=names | st.just("")),
)


@given(events)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    line = write_event(event)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert read_event(line) == event


AGENT = AgentView(id=AgentId("a1"), hostname="h1", total=(Resource(name="cpus", milli=4000), ports((31000, 31010))))
WANT = Want(id=WantId("web"), role="ads", count=2, resources=(Resource(name="cpus", milli=500),))
LIFE: tuple[Event, ...] = (
    Begin(source="by hand"),
    AgentCame(at=0.0, agent=AGENT),
    Arrived(at=1.5, framework_id=FrameworkId("f"), want=WANT, run_s=30.0),
)


@pytest.mark.parametrize("name", ["life.trace", "life.trace.gz"])
def test_a_trace_is_read_as_it_was_written_gzipped_by_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_trace(path, LIFE)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert is_trace(path)
    assert tuple(read_trace(path)) == LIFE


def test_a_gzipped_trace_is_read_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "life.trace.1"
    path.write_bytes(gzip.compress(b"".join(write_event(event) for event in LIFE)))
    assert tuple(read_trace(path)) == LIFE


def test_a_line_reads_as_people_would_write_it() -> None:
    assert write_event(LIFE[1]) == (
        b'{"type":"agent","at":0.0,"agent":{"id":"a1","hostname":"h1","total":{"cpus":4.0,"ports":"[31000-31010]"}}}\n'
    )
    assert write_event(LIFE[2]) == (
        b'{"type":"want","at":1.5,"framework_id":"f","want":{"id":"web","role":"ads","count":2,'
        b'"resources":{"cpus":0.5}},"run_s":30.0}\n'
    )


WANTED = '{"type":"want","at":1,"framework_id":"f","want":{"id":"w","role":"r","count":1,"resources":{"cpus":1}'

SET = '{"type":"settings","at":2,"settings":{'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "is not a JSON object"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `type`"),
        ('{"type":"wnat","at":1}', "'wnat' - at `$.type`; the types are begin, agent, agent-gone, role,"),
        ('{"type":"agent-gone","at":"soon","agent_id":"a"}', "Expected `float`, got `str` - at `$.at`"),
        ('{"type":"agent-gone","at":1}', "missing required field `agent_id`"),
        (WANTED.replace('"cpus":1', '"cpus":-1') + "}}", "gives cpus as -1; give a number of 0 or more"),
        (WANTED.replace('"cpus":1', '"ports":"[9-2]"') + "}}", "gives ports as '[9-2]'"),
        (WANTED.replace('"count":1', '"count":0') + "}}", "is about 0 instances; give 1 or more"),
        (WANTED + '},"run_s":-3}', "has the run time -3.0"),
        (WANTED + ',"colour":"red"}}', "has the field want.colour, which means nothing; there are id, role, count"),
        (WANTED + '},"colour":"red"}', "has the field colour, which means nothing; there are at, framework_id"),
        ('{"type":"agent-gone","at":0.5,"agent_id":"a"}', "happens at 0.5, before the line above it (1.5)"),
        ('{"type":"begin"}', "is of type begin; only the first is"),
        (SET + '"evictions_per_minute":-1}}', "allows -1 evictions per minute; give 0 for none, or more"),
        (SET + '"headroom":{"ports":"[1-9]"}}}', "has ports as headroom, which has no amount; give numbers alone"),
        (SET + '"headroom":{"cpus":-1}}}', "gives cpus as -1; give a number of 0 or more"),
        (SET + '"headrom":{"cpus":1}}}', "has the field settings.headrom, which means nothing; there are headroom"),
    ],
)
def test_a_wrong_line_is_named_by_file_line_and_reason(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "life.trace"
    path.write_bytes(b"".join(write_event(event) for event in LIFE) + line.encode() + b"\n")
    with pytest.raises(Invalid) as caught:
        list(read_trace(path))
    assert str(caught.value).startswith(f"{path} line 4 ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; the first line of a trace is of type begin"),
        ('{"type":"agent-gone","at":1,"agent_id":"a"}\n', "line 1 is not of type begin; the first must be"),
        ('{"type":"begin","format":2}\n', "line 1 says format 2 but this corral knows 1"),
    ],
)
def test_a_file_that_begins_otherwise_is_no_trace(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "life.trace"
    path.write_text(text)
    with pytest.raises(Invalid, match=said):
        list(read_trace(path))


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no trace file at"):
        list(read_trace(tmp_path / "nowhere"))


def test_a_trace_cut_short_is_an_error_rather_than_a_shorter_life(tmp_path: Path) -> None:
    path = tmp_path / "life.trace.gz"
    lives = [LIFE[0], *(AgentLeft(at=float(n), agent_id=AgentId(f"a{n}")) for n in range(5000))]
    write_trace(path, lives)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Invalid, match="cannot be read beyond line"):
        list(read_trace(path))
