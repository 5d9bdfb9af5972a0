"""Which agents a framework is offered: its offer constraints, and the regions of master and agents."""

from typing import Any

import msgspec
import pytest
from master_stage import Agent, Framework, Stage, agent_info, want

from corral.lib.errors import Invalid
from corral.master.spec import GetCluster, MasterConfig, SubscribeStream
from corral.model import calls, events
from corral.model.agent import AgentInfo
from corral.model.attributes import Attribute, AttributeKind
from corral.model.constraints import Constraint, Operator
from corral.model.domain import Domain, parse_domain
from corral.model.framework import Capability
from corral.model.offer_constraints import (
    AttributeConstraint,
    OfferConstraints,
    Predicate,
    Pseudo,
    RoleConstraints,
    admits,
    find_fault,
)
from corral.model.orders import Refused

AGENT = AgentInfo(
    hostname="h1", port=1, resources=(), domain=Domain(region="eu", zone="z1"),
    attributes=(
        Attribute(name="rack", text="r1"), Attribute(name="rack", text="r2"),
        Attribute(name="level", kind=AttributeKind.SCALAR, milli=1000), Attribute(name="long", text="x" * 300),
    ),
)  # fmt: skip


def rule(name: str | Pseudo, test: Predicate | None, value: str = "") -> AttributeConstraint:
    pseudo = name if isinstance(name, Pseudo) else None
    return AttributeConstraint(
        name=None if pseudo else str(name), pseudo=pseudo, test=test, value=value
    )  # fmt: skip


def for_role(*groups: tuple[AttributeConstraint, ...], role: str = "*") -> OfferConstraints:
    return (RoleConstraints(role=role, groups=groups),)


RACK, LEVEL, ABSENT = "rack", "level", "nowhere"
DECISIONS = [
    (RACK, Predicate.EXISTS, "", True),
    (ABSENT, Predicate.EXISTS, "", False),
    (RACK, Predicate.NOT_EXISTS, "", False),
    (ABSENT, Predicate.NOT_EXISTS, "", True),
    (RACK, Predicate.TEXT_EQUALS, "r1", True),
    (RACK, Predicate.TEXT_EQUALS, "r2", False),
    (LEVEL, Predicate.TEXT_EQUALS, "7", True),
    (ABSENT, Predicate.TEXT_EQUALS, "", False),
    (RACK, Predicate.TEXT_NOT_EQUALS, "r1", False),
    (RACK, Predicate.TEXT_NOT_EQUALS, "r2", True),
    (LEVEL, Predicate.TEXT_NOT_EQUALS, "1", True),
    (ABSENT, Predicate.TEXT_NOT_EQUALS, "r1", True),
    (RACK, Predicate.TEXT_MATCHES, "r[0-9]", True),
    (RACK, Predicate.TEXT_MATCHES, "r", False),
    (LEVEL, Predicate.TEXT_MATCHES, "x", True),
    (ABSENT, Predicate.TEXT_MATCHES, ".*", False),
    ("long", Predicate.TEXT_MATCHES, "x*", False),
    (RACK, Predicate.TEXT_NOT_MATCHES, "r[0-9]", False),
    (RACK, Predicate.TEXT_NOT_MATCHES, "r", True),
    (LEVEL, Predicate.TEXT_NOT_MATCHES, ".*", True),
    (ABSENT, Predicate.TEXT_NOT_MATCHES, ".*", True),
    (Pseudo.HOSTNAME, Predicate.TEXT_EQUALS, "h1", True),
    (Pseudo.REGION, Predicate.TEXT_EQUALS, "eu", True),
    (Pseudo.ZONE, Predicate.TEXT_NOT_EQUALS, "z1", False),
]


@pytest.mark.parametrize(("name", "test", "value", "holds"), DECISIONS)
def test_each_predicate_decides_by_the_attribute_and_by_its_absence(
    name: str | Pseudo, test: Predicate, value: str, holds: bool
) -> None:
    assert admits(((rule(name, test, value),),), AGENT) is holds


def test_groups_are_alternatives_and_the_constraints_of_one_hold_together() -> None:
    yes, no = rule(RACK, Predicate.EXISTS), rule(ABSENT, Predicate.EXISTS)
    assert not admits(((yes, no),), AGENT)
    assert admits(((yes, no), (yes,)), AGENT)
    assert not admits(((rule(Pseudo.REGION, Predicate.EXISTS),),), msgspec.structs.replace(AGENT, domain=None))


FAULTS: dict[str, tuple[OfferConstraints, str]] = {
    "a role of others": (for_role((rule(RACK, Predicate.EXISTS),), role="ads"), "not subscribed to that role"),
    "no groups": (for_role(), "there are no groups"),
    "an empty group": (for_role((rule(RACK, Predicate.EXISTS),), ()), r"groups\[1\] is empty"),
    "no selector": (for_role((AttributeConstraint(test=Predicate.EXISTS),)), "a selector names one of"),
    "two selectors": (
        for_role((AttributeConstraint(name="a", pseudo=Pseudo.ZONE, test=Predicate.EXISTS),)),
        "a selector names one of",
    ),
    "no predicate": (for_role((rule(RACK, None),)), "exactly one of exists, not_exists"),
    "a broken regex": (for_role((rule(RACK, Predicate.TEXT_MATCHES, "("),)), "no valid regular expression"),
    "a slow regex": (for_role((rule(RACK, Predicate.TEXT_NOT_MATCHES, "(a+)+"),)), "could take very long"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_constraints_that_cannot_be_decided_are_an_error_event_or_a_refused_update_and_change_nothing(
    name: str,
) -> None:
    constraints, text = FAULTS[name]
    stage = Stage()
    framework = stage.framework()

    def everything() -> Any:
        return stage.ask(GetCluster()), dict(stage.store)

    before = everything()
    call = calls.Subscribe(info=msgspec.structs.replace(framework.info, id=None), offer_constraints=constraints)
    stage.ask(SubscribeStream(stream="other", call=call))
    (error,) = [e for e in stage.events["other"] if isinstance(e, events.Error)]
    assert find_fault(constraints, ("*",)) == error.message
    with pytest.raises(Invalid, match=text):
        framework.call(calls.UpdateFramework(info=framework.info, offer_constraints=constraints))
    assert everything() == before


def constrain(framework: Framework, *constraints: AttributeConstraint) -> None:
    found = for_role(constraints) if constraints else ()
    framework.call(calls.UpdateFramework(info=framework.info, offer_constraints=found))


def offered(framework: Framework) -> set[str]:
    return {offer.hostname for offer in framework.offers()}


def test_offers_come_only_of_agents_that_the_constraints_admit() -> None:
    stage = Stage()
    for name in ("h1", "h2"):
        stage.agent(agent_info(name))
    framework = stage.framework(failover_timeout_s=60.0)
    assert offered(framework) == {"h1", "h2"}
    constrain(framework, rule(Pseudo.HOSTNAME, Predicate.TEXT_EQUALS, "h2"))
    assert len(framework.rescinded()) == 1, "the one that is not wanted any more"
    assert offered(framework) == set()
    assert [r.offer_constraints for r in stage.ask(GetCluster()).frameworks] == [
        for_role((rule(Pseudo.HOSTNAME, Predicate.TEXT_EQUALS, "h2"),))
    ]
    stage.agent(agent_info("h3"))
    assert offered(framework) == set()
    other = stage.framework(name="other")
    assert offered(other) == {"h1", "h3"}
    other.close()
    framework.close()
    framework.subscribe()
    assert offered(framework) == {"h1", "h2", "h3"}, "constraints are stated anew with each subscription"


def test_an_agent_that_changes_is_looked_at_again() -> None:
    stage = Stage()
    agent = stage.agent(agent_info("h1"))
    framework = stage.framework()
    constrain(framework, rule("rack", Predicate.TEXT_EQUALS, "rack-new"))
    framework.offers()
    agent.close()
    agent.info = msgspec.structs.replace(agent.info, attributes=(Attribute(name="rack", text="rack-new"),))
    agent.connect()
    assert offered(framework) == {"h1"}


# Regions.

HOME, AWAY = Domain(region="eu", zone="z1"), Domain(region="us", zone="z1")
AT_HOME = MasterConfig(least_refuse_s=0.0, domain=HOME)


def regions() -> tuple[Stage, list[Agent]]:
    stage = Stage(AT_HOME)
    infos = (agent_info("home", domain=HOME), agent_info("none"), agent_info("away", domain=AWAY))
    return stage, [stage.agent(info) for info in infos]


def test_agents_of_other_regions_are_offered_to_region_aware_frameworks_alone() -> None:
    stage, _ = regions()
    plain = stage.framework(name="plain")
    assert offered(plain) == {"home", "none"}
    aware = stage.framework(name="aware", capabilities=(Capability.REGION_AWARE,))
    (offer,) = aware.offers()
    assert (offer.hostname, offer.domain) == ("away", AWAY)


def spread(framework: Framework) -> None:
    """Want an instance in each of three hosts."""
    framework.want(want(count=3, constraints=(Constraint(field="@hostname", operator=Operator.UNIQUE),)))


@pytest.mark.parametrize("aware", [True, False])
def test_wants_follow_the_same_rule(aware: bool) -> None:
    stage, _ = regions()
    framework = stage.framework(capabilities=(Capability.REGION_AWARE,) if aware else ())
    spread(framework)
    assert offered(framework) == {"home", "none", *(["away"] if aware else [])}


def test_a_want_that_names_regions_is_served_where_it_says() -> None:
    stage, _ = regions()
    framework = stage.framework()
    framework.want(want(constraints=(Constraint(field="@region", operator=Operator.EQUAL, values=("us",)),)))
    assert offered(framework) == {"away"}
    framework.want(want(count=2, constraints=(Constraint(field="@zone", operator=Operator.UNIQUE),)))
    assert offered(framework) == {"home"}, "zones are of the region at home, and an agent without one is in none"


def test_a_framework_that_becomes_region_aware_has_its_wants_served_everywhere() -> None:
    stage, _ = regions()
    framework = stage.framework()
    spread(framework)
    assert offered(framework) == {"home", "none"}
    info = msgspec.structs.replace(framework.info, capabilities=(Capability.REGION_AWARE,))
    framework.call(calls.UpdateFramework(info=info))
    assert offered(framework) == {"away"}


def test_an_agent_with_a_domain_is_refused_by_a_master_without() -> None:
    stage = Stage()
    agent = stage.agent(agent_info("h1", domain=HOME))
    assert "has a fault domain but this master has none" in agent.take(Refused)[0].why
    assert stage.core.state.agents == {}


def test_a_subscriber_is_told_the_masters_domain() -> None:
    stage = Stage(AT_HOME)
    stream = SubscribeStream(stream="s", call=calls.Subscribe(info=stage.framework().info))
    stage.ask(stream)
    (found,) = [e for e in stage.events["s"] if isinstance(e, events.Subscribed)]
    assert found.master.domain == HOME


@pytest.mark.parametrize("text", ["eu", "/z1", "eu/", "eu/z1/x"])
def test_a_domain_is_a_region_and_a_zone(text: str) -> None:
    assert parse_domain(" eu / z1 ") == HOME
    assert parse_domain("") is None
    with pytest.raises(Invalid, match="REGION/ZONE"):
        parse_domain(text)
