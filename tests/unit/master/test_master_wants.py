"""Wants: shaped offers, what counts against a want, restating, explanations."""

import pytest
from master_stage import Framework, Stage, agent_info, bundle, task_info, want

from corral.lib.errors import Invalid
from corral.master.spec import GetExplanations
from corral.model import calls, events
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.offer import Offer, Want
from corral.model.orders import RunTask
from corral.model.resources import describe
from corral.model.task import TaskState


def first_party(stage: Stage, **more: object) -> Framework:
    return stage.framework(suppressed_roles=("*",), failover_timeout_s=1e6, **more)


def test_a_want_is_answered_with_offers_shaped_to_one_instance_each() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = first_party(stage)
    framework.want(want("w1", 2, ports=1))
    offers = framework.offers()
    assert [o.want_id for o in offers] == ["w1", "w1"]
    assert all(o.resources[0].milli == 1000 and o.agent_id == agent.id for o in offers)
    assert len({describe(o.resources) for o in offers}) == 2, "each has a port of its own"


def test_an_accepted_offer_takes_one_from_the_want_and_no_more_offers_come() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = first_party(stage)
    framework.want(want("w1", 1))
    (offer,) = framework.offers()
    info = task_info("t1", agent.id)
    framework.accept([offer], info)
    assert len(agent.take(RunTask)) == 1
    assert framework.entry().wants["w1"].remaining == 0
    stage.run(10)
    assert framework.offers() == []
    assert not list(stage.core.state.allocator.filters), "nothing was left to decline"


def test_offers_that_are_out_count_against_the_want() -> None:
    stage = Stage()
    stage.agent()
    framework = first_party(stage)
    framework.want(want("w1", 2))
    assert len(framework.offers()) == 2
    framework.want(want("w1", 3))
    assert len(framework.offers()) == 1


def test_a_want_stated_anew_is_absolute_because_the_calls_of_a_framework_are_ordered() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = first_party(stage)
    framework.want(want("w1", 3))
    first, second, third = framework.offers()
    framework.accept([first], task_info("t1", agent.id))
    framework.want(want("w1", 2))
    assert framework.rescinded() == []
    assert framework.offers() == []
    framework.want(want("w1", 1))
    assert framework.rescinded() == [third.id]
    framework.accept([second], task_info("t2", agent.id))
    assert framework.offers() == []


def test_a_want_of_another_shape_takes_back_the_offers_made_for_the_old_one() -> None:
    stage = Stage()
    stage.agent()
    framework = first_party(stage)
    framework.want(want("w1", 1))
    (offer,) = framework.offers()
    framework.want(want("w1", 1, resources=bundle(2, 128)))
    assert framework.rescinded() == [offer.id]
    (again,) = framework.offers()
    assert again.resources[0].milli == 2000


def test_a_want_that_is_left_out_is_withdrawn() -> None:
    stage = Stage()
    stage.agent()
    framework = first_party(stage)
    framework.want(want("w1"), want("w2"))
    offers = {o.want_id: o for o in framework.offers()}
    framework.want(want("w2"))
    assert framework.rescinded() == [offers["w1"].id]
    assert list(framework.entry().wants) == ["w2"]


def test_a_framework_that_states_wants_gets_no_coarse_offers_any_more() -> None:
    stage = Stage()
    stage.agent()
    framework = stage.framework()
    (coarse,) = framework.offers()
    framework.want()
    assert framework.rescinded() == [coarse.id]
    stage.run(10)
    assert framework.offers() == []


def test_a_plain_mesos_request_changes_nothing() -> None:
    stage = Stage()
    stage.agent()
    framework = stage.framework()
    framework.call(calls.Request(framework_id=framework.id))
    assert len(framework.offers()) == 1


def test_an_unanswered_offer_for_a_want_comes_back_and_is_made_again() -> None:
    stage = Stage()
    stage.agent()
    framework = first_party(stage)
    framework.want(want("w1"))
    (offer,) = framework.offers()
    stage.run(31)
    assert framework.rescinded() == [offer.id]
    (again,) = framework.offers()
    assert again.id != offer.id


def test_a_declined_offer_for_a_want_is_held_back_on_that_agent() -> None:
    stage = Stage()
    stage.agent(agent_info("h1"))
    stage.agent(agent_info("h2"))
    framework = first_party(stage)
    framework.want(want("w1"))
    (offer,) = framework.offers()
    framework.decline(offer, refuse_s=60)
    (other,) = framework.offers()
    assert other.agent_id != offer.agent_id


def test_coarse_offers_are_taken_back_for_a_want_that_they_block() -> None:
    stage = Stage()
    stage.agent()
    hoarder = stage.framework(name="hoarder")
    (held,) = hoarder.offers()
    framework = first_party(stage)
    framework.want(want("w1"))
    offers = framework.offers()
    assert hoarder.rescinded() == [held.id]
    assert [o.want_id for o in offers] == ["w1"]


def test_unique_instances_do_not_share_a_host_whether_offered_or_running() -> None:
    stage = Stage()
    for i in range(3):
        stage.agent(agent_info(f"h{i}"))
    framework = first_party(stage)
    unique = (Constraint(field=HOSTNAME, operator=Operator.UNIQUE),)

    def asked(count: int) -> Want:
        return want("w1", count, group="/web", group_size=3, constraints=unique)

    framework.want(asked(1))
    (first,) = framework.offers()
    framework.want(asked(2))
    (second,) = framework.offers()
    assert first.hostname != second.hostname
    framework.accept([first], task_info("t1", first.agent_id, group="/web"))
    framework.accept([second], task_info("t2", second.agent_id, group="/web"))
    framework.want(asked(2))
    (third,) = framework.offers()
    assert {first.hostname, second.hostname, third.hostname} == {"h0", "h1", "h2"}
    (explained,) = framework.take(events.Explanations)[-1].explanations
    assert explained.waiting == 1
    assert explained.refusals[0].reason == "constraint"


def test_a_want_that_does_not_fit_is_explained_to_its_framework_and_to_operators() -> None:
    stage = Stage()
    stage.agent()
    framework = first_party(stage)
    framework.want(want("big", 1, resources=bundle(1, 1 << 20), group="/big"))
    stage.run()
    (event,) = framework.take(events.Explanations)
    (explained,) = event.explanations
    assert explained.never
    assert explained.since_at == 1000.0
    assert explained.refusals[0].reason == "mem"
    shown = stage.ask(GetExplanations(group="/big"))["explanations"]
    assert [(e["want_id"], e["framework"], e["waiting"]) for e in shown] == [("big", "f", 1)]
    assert stage.ask(GetExplanations(want="other"))["explanations"] == []


def test_explanations_are_told_when_they_change_and_at_most_once_a_second() -> None:
    stage = Stage()
    agent = stage.agent(cpus=2)
    framework = first_party(stage)
    framework.want(want("w1", 4))
    framework.offers()
    assert [e.explanations[0].waiting for e in framework.take(events.Explanations)] == [2]
    framework.want(want("w1", 5))
    stage.run(0.1)
    framework.want(want("w1", 6))
    stage.run(0.1)
    assert framework.take(events.Explanations) == []
    stage.run(1.0)
    assert [e.explanations[0].waiting for e in framework.take(events.Explanations)] == [4]
    stage.run(5.0)
    assert framework.take(events.Explanations) == []
    framework.want()
    stage.run(2.0)
    assert [e.explanations for e in framework.take(events.Explanations)] == [()]
    assert agent.free() == agent.info.resources


def test_the_time_since_when_a_want_waits_is_kept_through_restating() -> None:
    stage = Stage()
    framework = first_party(stage)
    framework.want(want("w1", 1))
    stage.run(50)
    framework.want(want("w1", 2))
    stage.run()
    assert framework.take(events.Explanations)[-1].explanations[0].since_at == 1000.0


def test_waiting_instances_are_offered_as_soon_as_something_fits() -> None:
    stage = Stage()
    agent = stage.agent(cpus=1)
    framework = first_party(stage)
    framework.want(want("w1", 2))
    (offer,) = framework.offers()
    framework.accept([offer], task_info("t1", agent.id))
    assert framework.offers() == []
    agent.update("t1", TaskState.FINISHED, framework.id)
    assert len(framework.offers()) == 1


def test_a_disconnected_framework_loses_its_wants_and_states_them_again() -> None:
    stage = Stage()
    stage.agent()
    framework = first_party(stage)
    framework.want(want("w1"))
    framework.offers()
    framework.close()
    assert not framework.entry().wants
    assert not stage.core.state.offers
    framework.subscribe(("*",))
    framework.want(want("w1"))
    assert len(framework.offers()) == 1


@pytest.mark.parametrize(
    ("wants", "word"),
    [
        ((want("w"), want("w")), "twice"),
        ((want(""),), "without an id"),
        ((want(role="other"),), "role 'other'"),
        ((want(count=-1),), "below 0"),
        ((want(ports=-1),), "below 0"),
        ((want(resources=()),), "more than 0"),
        ((want(resources=bundle(0, 0, (80, 80))),), "more than 0"),
        ((want(resources=bundle(1, 0, (80, 80))),), "fixed_ports"),
        ((want(fixed_ports=(70000,)),), "65535"),
        ((want(strategy="best"),), "strategy"),
        ((want(constraints=(Constraint(field="x", operator=Operator.MATCH, values=("(",)),)),), "regular expression"),
    ],
)
def test_a_want_that_breaks_a_rule_is_refused_and_the_former_ones_stay(wants: tuple[Want, ...], word: str) -> None:
    framework = first_party(Stage())
    framework.want(want("former"))
    with pytest.raises(Invalid, match=word):
        framework.want(*wants)
    assert list(framework.entry().wants) == ["former"]


def test_thirty_wants_on_ten_agents_are_served_in_one_run() -> None:
    stage = Stage()
    for i in range(10):
        stage.agent(agent_info(f"h{i}", cpus=16))
    framework = first_party(stage)
    framework.want(*(want(f"w{i}", 1) for i in range(30)))
    runs = stage.core.state.allocation_runs
    offers: list[Offer] = framework.offers()
    assert len(offers) == 30
    assert stage.core.state.allocation_runs == runs + 1
    for offer in offers:
        framework.accept([offer], task_info(f"t-{offer.want_id}", offer.agent_id))
    assert len(framework.entry().tasks) == 30
