"""Explanations: which reasons, in whose words, and hints that hold."""

from tests.unit.allocator.words import agent as place
from tests.unit.allocator.words import bundle, role, taken, told, want

from corral.allocator.allocator import Allocator
from corral.allocator.explain import MOST_HINTS, MOST_REFUSALS
from corral.allocator.view import AgentView, Filter, Hold, WantView
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.ids import AgentId, FrameworkId
from corral.model.offer import Explanation


def agent(name: str, total: str, **fields: object) -> AgentView:
    """An agent whose id is not its host's name, so that it shows which of them people are told."""
    return place("id-" + name, total, **{"hostname": name, "runtimes": ("docker",), **fields})


def full(name: str, total: str, free: str, **fields: object) -> tuple[AgentView, Hold]:
    there = agent(name, total, **fields)
    return there, taken(there, free)


def asked(allocator: Allocator, stated: WantView) -> Explanation:
    """What is said of a want that got nothing."""
    allocator.set_want(stated)
    assert (stated.framework_id, stated.want.id) in allocator.run(0.0).waiting
    return allocator.explain(stated.framework_id, stated.want.id)


def why(*facts: AgentView | Hold, resources: str = "cpus:1;mem:64", **fields: object) -> Explanation:
    return asked(told(*facts), want("w", 1, resources, since_at=7.0, **fields))  # type: ignore[arg-type]


def table(explanation: Explanation) -> dict[str, int]:
    return {r.reason: r.agents for r in explanation.refusals}


def test_a_terabyte_app_is_told_what_the_largest_agent_has_and_that_it_never_fits() -> None:
    explanation = why(agent("h1", "cpus:8;mem:15360"), agent("h2", "cpus:8;mem:8192"), resources="cpus:1;mem:1048576")
    (refusal,) = explanation.refusals
    assert (refusal.reason, refusal.agents, refusal.best) == ("mem", 2, "h1")
    assert refusal.detail == "wants mem 1048576, the most free is 15360 on h1"
    assert explanation.fits_if == ("mem ≤ 15360",)
    assert explanation.never


def test_a_full_cluster_that_could_hold_it_later_is_not_never() -> None:
    explanation = why(*full("h1", "cpus:8;mem:4096", "cpus:8;mem:32"))
    assert (explanation.never, explanation.fits_if) == (False, ("mem ≤ 32",))


def test_who_waits_and_since_when_is_told() -> None:
    explanation = why(agent("h1", "cpus:0.5;mem:64"))
    assert (explanation.want_id, explanation.framework_id, explanation.role) == ("w", "f", "r")
    assert (explanation.waiting, explanation.since_at, explanation.agents) == (1, 7.0, 1)


def test_an_agent_that_fails_twice_counts_twice_and_gives_no_hint() -> None:
    explanation = why(agent("h1", "cpus:0.5;mem:32"))
    assert table(explanation) == {"cpus": 1, "mem": 1}
    assert explanation.fits_if == ()


def test_the_most_frequent_reason_comes_first() -> None:
    explanation = why(agent("h1", "cpus:0.5;mem:32"), agent("h2", "cpus:8;mem:32"))
    assert [r.reason for r in explanation.refusals] == ["mem", "cpus"]


def test_the_agent_named_is_the_one_with_the_fewest_other_reasons() -> None:
    explanation = why(agent("h1", "cpus:0.5;mem:60"), agent("h2", "cpus:8;mem:32"))
    assert {r.reason: r.best for r in explanation.refusals} == {"mem": "h2", "cpus": "h1"}
    assert explanation.fits_if == ("mem ≤ 32",)


def test_nothing_free_at_all_gives_no_hint_of_zero() -> None:
    assert why(*full("h1", "cpus:8;mem:64", "cpus:8")).fits_if == ()


def test_a_resource_no_agent_has_is_named() -> None:
    explanation = why(agent("h1", "cpus:8;mem:64"), resources="licences:1")
    assert table(explanation) == {"licences": 1}
    assert explanation.never


def test_constraints_are_quoted_with_what_the_agent_has() -> None:
    rack = Constraint(field="rack", operator=Operator.EQUAL, values=("r9",))
    explanation = why(
        agent("h1", "cpus:8;mem:64", attributes={"rack": "r1"}), agent("h2", "cpus:8;mem:64"), constraints=(rack,)
    )
    assert table(explanation) == {"constraint": 2}
    assert explanation.refusals[0].detail == "constraint rack == r9; h1 has r1"
    assert explanation.fits_if == ("without the constraint rack == r9",)
    assert explanation.never


def test_a_counting_constraint_is_a_reason_but_not_for_ever() -> None:
    unique = Constraint(field=HOSTNAME, operator=Operator.UNIQUE)
    explanation = asked(told(agent("h1", "cpus:8")), want("w", 2, "cpus:1", constraints=(unique,)))
    assert table(explanation) == {"constraint": 1}
    assert explanation.fits_if == ("without the constraint @hostname unique",)
    assert not explanation.never


def test_a_missing_runtime_is_a_reason() -> None:
    explanation = why(agent("h1", "cpus:8;mem:64", runtimes=("process",)), runtime="docker")
    assert explanation.refusals[0].detail == "wants the runtime docker, h1 runs process"
    assert explanation.fits_if == ("runtime process",)
    assert explanation.never


def test_a_runtime_that_is_not_ready_is_a_reason_but_not_for_ever() -> None:
    there = agent("h1", "cpus:8;mem:64", runtimes=("process",), unready_runtimes=("docker",))
    explanation = why(there, runtime="docker")
    assert table(explanation) == {"runtime": 1}
    assert (
        explanation.refusals[0].detail == "wants the runtime docker, h1 runs process, and docker is there but not ready"
    )
    assert not explanation.never


def test_agents_that_take_nothing_new_count_under_the_word_for_it() -> None:
    explanation = why(
        agent("h1", "cpus:8;mem:64", ineligible="draining"), agent("h2", "cpus:8;mem:64", ineligible="unreachable")
    )
    assert table(explanation) == {"draining": 1, "unreachable": 1}
    assert explanation.fits_if == ("h1 is no longer draining", "h2 is no longer unreachable")
    assert not explanation.never


def test_an_agent_that_takes_nothing_new_does_not_blur_the_other_reasons() -> None:
    explanation = why(*full("h1", "cpus:8;mem:64", "", ineligible="unreachable"), agent("h2", "cpus:8;mem:32"))
    assert table(explanation) == {"unreachable": 1, "mem": 1}
    assert explanation.fits_if == ("mem ≤ 32",), "nobody knows what h1 would have free"


def test_too_few_ports_are_counted() -> None:
    explanation = why(agent("h1", "cpus:8;mem:64;ports:[1-3]"), ports=4)
    assert explanation.refusals[0].detail == "wants 4 ports, the most free are 3 on h1"
    assert explanation.fits_if == ("ports ≤ 3",)


def test_a_fixed_port_in_use_is_named_with_its_host() -> None:
    explanation = why(*full("h1", "cpus:8;mem:64;ports:[80-90]", "cpus:8;mem:64;ports:[81-90]"), fixed_ports=(80, 81))
    assert table(explanation) == {"port taken": 1}
    assert explanation.refusals[0].detail == "wants port 80, which h1 does not have free"
    assert explanation.fits_if == ("port 80 is free on h1",)
    assert not explanation.never


def test_explanations_are_bounded_however_many_reasons_there_are() -> None:
    constraints = tuple(Constraint(field=f"f{i}", operator=Operator.EQUAL, values=("x",)) for i in range(40))
    agents = [
        agent(f"h{i}", "cpus:8;mem:64", attributes={f"f{j}": "x" for j in range(40) if j != i}) for i in range(40)
    ]
    explanation = why(*agents, constraints=constraints)
    assert len(explanation.refusals) == MOST_REFUSALS
    assert len(explanation.fits_if) == MOST_HINTS


def test_a_hint_asks_no_more_than_guarantees_of_others_leave() -> None:
    allocator = told(agent("h1", "cpus:4;mem:64"), g=role(guarantee="cpus:1"))
    assert asked(allocator, want("w", 1, "cpus:9;mem:64")).fits_if == ("cpus ≤ 3",)
    allocator.set_want(want("w", 1, "cpus:3;mem:64"))
    assert len(allocator.run(1.0).grants) == 1


def test_there_is_no_hint_of_one_resource_where_guarantees_keep_another() -> None:
    allocator = told(agent("h1", "cpus:4;mem:64"), g=role(guarantee="cpus:1"))
    assert asked(allocator, want("w", 1, "cpus:4;mem:128")).fits_if == ()


def test_a_hint_leads_to_nothing_that_the_framework_refused() -> None:
    framework, role_name, agent_id = FrameworkId("f"), "r", AgentId("id-h1")
    refused = Filter(
        framework_id=framework, role=role_name, agent_id=agent_id, resources=bundle("cpus:4;mem:64"), until_at=9.0
    )
    allocator = told(agent("h1", "cpus:4;mem:64"))
    allocator.set_filters(framework, role_name, agent_id, [refused])
    assert asked(allocator, want("w", 1, "cpus:9")).fits_if == ()
