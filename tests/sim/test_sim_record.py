"""A whole cluster lives in virtual time and is recorded; its recording says what happened and can be simulated."""

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from corral.allocator.view import Settings
from corral.frameworks.services import Config, build
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import AppUpdate, CreateApp, DeleteApp, KillTasks, UpdateApps
from corral.lib.errors import Failed, Invalid
from corral.master.core import MasterCore
from corral.master.spec import Input as MasterInput
from corral.model.operator import SetRole
from corral.model.resources import Resource
from corral.model.role import RoleSettings
from corral.runtime.core import Core
from corral.runtime.journal import Header, Journal, Replayable
from corral.runtime.turn import Recorders
from corral.sdk.scheduler import Session
from corral.sim.cluster import MASTER, Cluster
from corral.sim.compare import Asked, compare, load, make_allocator
from corral.sim.record import TraceRecorder, read_journal
from corral.sim.trace import (
    AgentCame,
    AgentLeft,
    Arrived,
    Begin,
    Ended,
    Event,
    RoleSet,
    SettingsSet,
    Started,
    Withdrawn,
    read_trace,
)
from corral.sim.workload import Fate, from_trace
from corral.sim.world import Process

MASTER_CORE = {"master": Replayable(MasterInput, lambda header: MasterCore(MASTER, Random(header.seed)))}


def make_services(random: Random) -> Core:
    framework = build(Config(), random)
    return Session(framework.info, framework.core, random)


def recorded_cluster(folder: Path, agents: int = 2) -> Cluster:
    cluster = Cluster(7, {"services": make_services}, agents=agents)

    def record(process: Process) -> Recorders:
        header = Header(component="master", seed=process.seed, drain=256)
        journal = Journal(str(folder / f"master.journal.{process.incarnation}"), header)
        return Recorders(journal, TraceRecorder(folder / f"life.{process.incarnation}.trace"))

    cluster.master.record = record
    cluster.start()
    cluster.run(5.0)
    return cluster


def app(name: str, instances: int, cpus: float = 0.5) -> AppSpec:
    return AppSpec(id=name, cmd="serve", instances=instances, cpus=cpus, mem_mb=32.0)


def scale(cluster: Cluster, spec: AppSpec) -> None:
    update = AppUpdate(id=spec.id, spec=spec, given=("instances",))
    cluster.ask("services", UpdateApps(updates=(update,), force=True, single=True))


def end(cluster: Cluster) -> None:
    for process in cluster.processes:
        process.crash("at the end")


def only(events: Iterable[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture
def life(tmp_path: Path) -> Path:
    """The folder with the recordings of a short life in which everything a trace can tell has happened."""
    cluster = recorded_cluster(tmp_path)
    cluster.master.ask(SetRole(role="ads", weight=2.0, limit=(Resource(name="gpus"),)))
    cluster.ask("services", CreateApp(spec=app("/web", 3)))
    cluster.run(20.0, until=lambda: len(cluster.running()) == 3)
    # More than there is room for: some of it waits until it is wanted no more.
    cluster.ask("services", CreateApp(spec=app("/big", 4, cpus=2.5)))
    cluster.run(20.0)
    assert len(cluster.running()) == 5
    scale(cluster, app("/web", 1))
    cluster.run(20.0)
    cluster.ask("services", KillTasks(app="/web"))
    cluster.run(20.0, until=lambda: len(cluster.running()) == 3)
    cluster.run(5.0)
    cluster.ask("services", DeleteApp(id="/big", force=True))
    cluster.run(20.0)
    cluster.agents["agent2"].crash("for good")
    cluster.disconnect_all("agent2")
    cluster.run(60.0)
    end(cluster)
    return tmp_path


def test_a_recording_tells_what_was_there_what_was_wanted_and_what_ran(life: Path) -> None:
    events = list(read_trace(life / "life.1.trace"))
    assert isinstance(events[0], Begin)
    assert events[0].start_at > 0
    came = [event.agent for event in events if isinstance(event, AgentCame)]
    assert [(agent.hostname, agent.ineligible) for agent in came] == [
        ("agent1", ""), ("agent2", ""), ("agent2", "unreachable"),
    ]  # fmt: skip
    roles = [(event.name, event.settings) for event in events if isinstance(event, RoleSet)]
    assert roles == [("ads", RoleSettings(weight=2.0, limit=(Resource(name="gpus"),)))]
    arrived = sum(event.want.count for event in events if isinstance(event, Arrived))
    withdrawn = sum(event.count for event in events if isinstance(event, Withdrawn))
    started, ended = only(events, Started), only(events, Ended)
    assert len(started) >= 6
    assert arrived == len(started) + withdrawn, "what was wanted has started or was withdrawn in the end"
    assert withdrawn == 2, "two of /big never found room"
    assert all(isinstance(event, Started) and event.want_id for event in started)
    assert len(started) - len(ended) == 1, "one instance of /web runs on"
    assert only(events, AgentLeft) == []


def test_the_journal_of_a_master_tells_the_same_as_its_recording(life: Path) -> None:
    assert read_journal(life / "master.journal.1", MASTER_CORE) == list(read_trace(life / "life.1.trace"))


def test_a_recording_tells_what_operators_had_set_for_the_whole_cluster(tmp_path: Path) -> None:
    settings = Settings(headroom=(Resource(name="cpus", milli=2000),), evictions_per_minute=3)
    recorder = TraceRecorder(tmp_path / "life.trace", settings)
    recorder.record("something", 10.0, [])
    recorder.close()
    assert list(read_trace(tmp_path / "life.trace"))[1:] == [SettingsSet(at=0.0, settings=settings)]


def test_a_recording_can_be_simulated_with_the_run_times_that_it_tells(life: Path) -> None:
    asked = Asked(trace=life / "life.1.trace", policies=("spread", "binpack"))
    workload = load(asked, lambda: MASTER_CORE)
    fates = [fate for batch in workload.batches for fate in batch.fates]
    assert sum(fate.withdrawn_at is not None for fate in fates) == 2
    assert fates.count(Fate()) == 1, "what ran at the end runs for ever"
    assert all(fate.run_s is not None and fate.run_s > 0 for fate in fates if fate != Fate() and not fate.withdrawn_at)
    found = compare(asked, workload, make_allocator)
    for run in found.runs:
        assert run.instances == len(fates)
        assert run.waits.placed == len(fates) - 2
        assert run.counts.withdrawn == 2
        assert run.peak_allocated["cpus"] == pytest.approx(6.5 / 8.0, abs=0.001)


def test_a_recording_goes_on_with_the_next_reign_of_the_master(tmp_path: Path) -> None:
    cluster = recorded_cluster(tmp_path)
    cluster.ask("services", CreateApp(spec=app("/web", 2)))
    cluster.run(20.0, until=lambda: len(cluster.running()) == 2)
    cluster.master.crash("to be followed by another")
    cluster.master.start()
    cluster.run(30.0)
    scale(cluster, app("/web", 3))
    cluster.run(20.0, until=lambda: len(cluster.running()) == 3)
    end(cluster)
    events = list(read_trace(tmp_path / "life.2.trace"))
    started = [event for event in events if isinstance(event, Started)]
    assert [event.want_id is None for event in started] == [True, True, False], "two were there, one was wanted"
    assert sum(len(batch.fates) for batch in from_trace(events).batches) == 3


def test_a_recording_keeps_the_one_of_the_run_before(tmp_path: Path) -> None:
    for source in ("first", "second"):
        recorder = TraceRecorder(tmp_path / "life.trace")
        recorder.record(source, 10.0, [])
        assert recorder.flush() is None
        recorder.close()
    assert len(list(read_trace(tmp_path / "life.trace"))) == len(list(read_trace(tmp_path / "life.trace.1"))) == 1


def test_a_recording_that_cannot_be_written_ends_with_a_reason_and_nothing_else() -> None:
    recorder = TraceRecorder(Path("/dev/full"))
    recorder.record("something", 10.0, [])
    why = recorder.flush()
    assert why is not None, "a full disk is noticed"
    assert why.startswith("/dev/full cannot be written")
    recorder.record("more", 11.0, [])
    assert recorder.flush() is None
    recorder.close()


def test_only_the_journal_of_a_master_becomes_a_trace(tmp_path: Path, life: Path) -> None:
    other = tmp_path / "agent.journal"
    Journal(str(other), Header(component="agent", seed=0, drain=1)).close()
    cores = {**MASTER_CORE, "agent": MASTER_CORE["master"]}
    with pytest.raises(Invalid, match="journal of component agent; only a master's says what was wanted"):
        read_journal(other, cores)
    cheat = Replayable(MasterInput, lambda header: MasterCore(MASTER, Random(header.seed + 1)))
    with pytest.raises(Failed, match="decided otherwise than recorded"):
        read_journal(life / "master.journal.1", {"master": cheat})
