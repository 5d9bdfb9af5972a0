"""Maintenance: windows, inverse offers, machines that go down and come up."""

from typing import Any

import msgspec
import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, states, want

from corral.lib.errors import Invalid
from corral.master.spec import Command, GetCluster
from corral.model import calls, events
from corral.model.ids import InverseOfferId
from corral.model.maintenance import (
    Answer,
    InverseOffer,
    Machine,
    StartMaintenance,
    StopMaintenance,
    Unavailability,
    UpdateSchedule,
    Window,
)
from corral.model.offer import Filters
from corral.model.orders import Refused
from corral.model.task import Reason, TaskState

H1, H2 = Machine(hostname="h1"), Machine(hostname="h2", ip="127.0.0.1")


def window(*machines: Machine, start_s: float = 5000.0, duration_s: float | None = 100.0) -> Window:
    duration_ns = int(duration_s * 1e9) if duration_s is not None else None
    return Window(
        machines=machines, unavailability=Unavailability(start_ns=int(start_s * 1e9), duration_ns=duration_ns)
    )  # fmt: skip


def plan(stage: Stage, *windows: Window) -> None:
    stage.ask(UpdateSchedule(windows=windows))


def inverse(framework: Framework) -> list[InverseOffer]:
    return [one for event in framework.take(events.InverseOffers) for one in event.inverse_offers]


def accept(framework: Framework, *ids: InverseOfferId) -> None:
    framework.call(calls.AcceptInverseOffers(framework_id=framework.id, inverse_offer_ids=ids))


def decline(framework: Framework, *ids: InverseOfferId, refuse_s: float = 5.0) -> None:
    framework.call(
        calls.DeclineInverseOffers(framework_id=framework.id, inverse_offer_ids=ids, filters=Filters(refuse_s=refuse_s))
    )


def answers(stage: Stage) -> list[tuple[Machine, list[Answer]]]:
    return [(row.machine, [one.status for one in row.answers]) for row in stage.ask(GetCluster()).machines]


def test_offers_of_a_scheduled_machine_are_taken_back_and_come_again_with_their_unavailability() -> None:
    stage = Stage()
    stage.agent(agent_info("H1"))
    framework = stage.framework()
    (offer,) = framework.offers()
    assert offer.unavailability is None
    plan(stage, window(H1))
    assert framework.rescinded() == [offer.id]
    (again,) = framework.offers()
    assert again.unavailability == window(H1).unavailability
    plan(stage)
    assert framework.rescinded() == [again.id]
    assert framework.offers()[0].unavailability is None
    assert "maintenance" not in stage.store


def test_who_runs_something_on_a_scheduled_machine_is_asked_to_leave_and_the_answer_is_shown() -> None:
    stage = Stage()
    agent, other = stage.agent(agent_info("h1")), stage.agent(agent_info("h2"))
    framework, idle = stage.framework(name="busy"), stage.framework(name="idle", suppressed_roles=("*",))
    framework.launch(agent)
    plan(stage, window(H1))
    (asked,) = inverse(framework)
    assert (asked.agent_id, asked.unavailability) == (agent.id, window(H1).unavailability)
    assert inverse(idle) == []
    assert answers(stage) == [(H1, [Answer.UNKNOWN])]
    accept(idle, asked.id)
    assert answers(stage) == [(H1, [Answer.UNKNOWN])], "an answer of somebody else says nothing"
    decline(framework, asked.id)
    assert answers(stage) == [(H1, [Answer.DECLINE])]
    assert inverse(framework) == []
    stage.run(6)
    (again,) = inverse(framework)
    assert answers(stage) == [(H1, [Answer.DECLINE])], "the last answer counts until there is a new one"
    accept(framework, again.id)
    assert answers(stage) == [(H1, [Answer.ACCEPT])]
    stage.run(60)
    assert inverse(framework) == [], "who accepts is not asked again"
    assert other.entry().inverse == {}


def test_who_comes_late_is_asked_too() -> None:
    stage = Stage()
    agent = stage.agent(agent_info("h1"))
    plan(stage, window(H1))
    framework = stage.framework(failover_timeout_s=60.0)
    framework.launch(agent)
    (asked,) = inverse(framework)
    framework.close()
    assert answers(stage) == [(H1, [])], "nobody waits for an answer of one that has left"
    framework.subscribe()
    (again,) = inverse(framework)
    assert again.id != asked.id
    accept(framework, asked.id)
    assert answers(stage) == [(H1, [Answer.UNKNOWN])]


def test_a_machine_that_leaves_the_schedule_takes_its_inverse_offers_back() -> None:
    stage = Stage()
    agent, framework = stage.agent(agent_info("h1")), stage.framework()
    framework.launch(agent)
    plan(stage, window(H1))
    (asked,) = inverse(framework)
    plan(stage, window(H2))
    (rescinded,) = framework.take(events.RescindInverseOffer)
    assert rescinded.inverse_offer_id == asked.id
    assert stage.core.state.inverse_offers == {}


def test_while_a_window_is_open_wants_get_nothing_there() -> None:
    stage = Stage()
    stage.agent(agent_info("h1"))
    planned = stage.framework(name="planned")
    plan(stage, window(H1, start_s=stage.now + 10, duration_s=20))
    planned.want(want(count=1))
    (offer,) = planned.offers()
    assert offer.unavailability is not None
    stage.run(10)
    assert planned.rescinded() == [offer.id]
    assert planned.offers() == []
    assert stage.core.state.agents[offer.agent_id].ineligible == "maintenance"
    stage.run(20)
    assert len(planned.offers()) == 1


@pytest.mark.parametrize("aware", [True, False])
def test_a_machine_that_goes_down_loses_its_agents_until_it_is_up_again(aware: bool) -> None:
    stage = Stage()
    agent = stage.agent(agent_info("h1"))
    framework = stage.framework(capabilities=PARTITION_AWARE if aware else ())
    framework.launch(agent)
    plan(stage, window(H1), window(H2))
    stage.ask(StartMaintenance(machines=(H1,)))
    assert [o.end_tasks for o in agent.take(Refused)] == [True]
    gone = TaskState.GONE if aware else TaskState.LOST
    assert states(framework.updates()) == [("t1", gone, Reason.AGENT_REMOVED)]
    assert framework.take(events.Failure) == [events.Failure(agent_id=agent.id)]
    found = stage.ask(GetCluster())
    assert (found.agents, found.down, [row.machine for row in found.machines]) == ((), (H1,), [H2])
    fresh = stage.restart()
    late = Agent(fresh, msgspec.structs.replace(agent.info, id=None))
    late.connect()
    assert "is down for maintenance" in late.take(Refused)[0].why
    fresh.ask(StopMaintenance(machines=(H1,)))
    late.connect()
    assert late.entry().ineligible == ""
    assert fresh.ask(GetCluster()).windows == (window(H2),)


def test_a_schedule_outlives_the_master() -> None:
    stage = Stage()
    agent = stage.agent(agent_info("h1"))
    plan(stage, window(H1, start_s=900.0, duration_s=None))
    fresh = stage.restart()
    assert fresh.ask(GetCluster()).windows == stage.ask(GetCluster()).windows
    again = Agent(fresh, agent.info)
    again.connect()
    assert again.entry().ineligible == "maintenance"


CALLS: dict[str, tuple[Command, str]] = {
    "a machine twice in one window": (UpdateSchedule(windows=(window(H1, H1),)), "h1 is listed twice"),
    "a machine in two windows": (UpdateSchedule(windows=(window(H1), window(H1))), "h1 is listed twice"),
    "a schedule without what is down": (UpdateSchedule(windows=(window(H1),)), "h2=127.0.0.1 is down"),
    "down without machines": (StartMaintenance(), "list of machines is empty"),
    "down twice in one call": (StartMaintenance(machines=(H1, H1)), "listed twice"),
    "down again": (StartMaintenance(machines=(H1, H2)), "is down already"),
    "down without schedule": (StartMaintenance(machines=(H1, Machine(hostname="h9"))), "h9 is not scheduled"),
    "up without machines": (StopMaintenance(), "list of machines is empty"),
    "up what is up": (StopMaintenance(machines=(H2, H1)), "h1 is not down"),
}


@pytest.fixture(scope="module")
def cluster() -> Stage:
    stage = Stage()
    stage.agent(agent_info("h1"))
    plan(stage, window(H1), window(H2))
    stage.ask(StartMaintenance(machines=(H2,)))
    return stage


@pytest.mark.parametrize("name", CALLS)
def test_what_must_not_be_asked_of_machines_is_refused_and_changes_nothing(cluster: Stage, name: str) -> None:
    command, text = CALLS[name]

    def everything() -> Any:
        return cluster.ask(GetCluster()), dict(cluster.store)

    before = everything()
    with pytest.raises(Invalid, match=text):
        cluster.ask(command)
    assert everything() == before
