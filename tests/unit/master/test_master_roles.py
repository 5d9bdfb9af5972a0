"""Roles as operators set them: what is taken, what is refused without a trace, and what a new master remembers."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from master_stage import Framework, Stage, agent_info, bundle, task_info, want

from corral.lib.errors import Conflict, CorralError, Invalid, NotFound
from corral.master import role_tree
from corral.master.role_form import read_set_role
from corral.master.spec import Command, GetCluster, GetRoles, WeightRecord
from corral.model.operator import RemoveQuota, RemoveRole, SetQuota, SetRole, UpdateQuota, UpdateWeights
from corral.model.resources import Resources, describe, scalar
from corral.model.role import Quota, RoleSettings, is_within, line_of, tree_order
from corral.runtime.core import Asked, Persist, Reply, Stored, encode_record


def amounts(**found: float) -> Resources:
    return tuple(scalar(name, value) for name, value in sorted(found.items()))


def memory(stage: Stage) -> tuple[Any, ...]:
    """All that a command about roles may change."""
    state = stage.core.state
    return dict(stage.store), dict(state.roles), dict(state.allocator.roles), list(state.offers), dict(stage.timers)


def refused(stage: Stage, command: Command, kind: type[CorralError]) -> str:
    """The words of the refusal, which leaves no trace."""
    before = memory(stage)
    with pytest.raises(kind) as error:
        stage.ask(command)
    assert type(error.value) is kind
    assert memory(stage) == before
    return error.value.message


def shown(stage: Stage, role: str) -> dict[str, Any]:
    found: dict[str, Any] = stage.ask(GetRoles(role=role))
    return found


@pytest.fixture
def stage() -> Stage:
    """A cluster of 8 cpus and 8192 of mem."""
    made = Stage()
    for name in ("h1", "h2"):
        made.agent(agent_info(name))
    return made


@pytest.fixture
def busy(stage: Stage) -> tuple[Stage, Framework]:
    """The cluster with a task of 3 cpus in ads/etl; what is left of its agents is out in coarse offers of the role."""
    framework = stage.framework(role="ads/etl")
    first, second = framework.offers()
    framework.accept([first], task_info("t1", first.agent_id, bundle(3, 512)), refuse_s=0)
    assert [o.agent_id for o in framework.offers()] == [first.agent_id]
    assert second.id in stage.core.state.offers
    return stage, framework


# Setting, keeping, forgetting.


def test_what_is_not_named_keeps_its_value(stage: Stage) -> None:
    stage.ask(SetRole(role="ads/etl", weight=2.0, guarantee=amounts(cpus=2), limit=amounts(cpus=4, gpus=0)))
    stage.ask(SetRole(role="ads/etl", max_tasks=10, priority=5, half_life_s=3600.0, strategy="binpack"))
    assert stage.core.state.roles["ads/etl"] == RoleSettings(
        weight=2.0, guarantee=amounts(cpus=2), limit=amounts(cpus=4, gpus=0), max_tasks=10, priority=5,
        half_life_s=3600.0, strategy="binpack",
    )  # fmt: skip
    stage.ask(SetRole(role="ads/etl", limit=(), max_tasks=None, half_life_s=None, strategy=""))
    assert stage.core.state.roles["ads/etl"] == RoleSettings(weight=2.0, guarantee=amounts(cpus=2), priority=5)


def test_what_is_set_outlives_the_master_and_its_allocator_is_told_anew(stage: Stage) -> None:
    stage.ask(SetRole(role="ads/etl", weight=2.0, limit=amounts(cpus=4, gpus=0), half_life_s=60.0))
    stage.ask(SetRole(role="web"))
    later = stage.restart()
    assert later.core.state.roles == stage.core.state.roles
    assert later.core.state.allocator.roles == later.core.state.roles
    later.ask(RemoveRole(role="web"))
    assert list(later.core.state.allocator.roles) == list(later.restart().core.state.roles) == ["ads/etl"]


def test_a_change_is_one_transaction_with_its_answer_and_the_allocator_is_told(stage: Stage) -> None:
    quotas = (Quota(role="a", limit=amounts(cpus=1)), Quota(role="b", guarantee=amounts(cpus=1)))
    effects = stage.give(Asked(1, UpdateQuota(quotas=quotas)))
    assert [e.key for e in effects if isinstance(e, Persist)] == ["roles/a", "roles/b"]
    assert [e.ask for e in effects if isinstance(e, Reply)] == [1]
    assert list(stage.core.state.allocator.roles) == ["a", "b"]
    assert stage.what()[-2:] == ["role set", "role set"]
    assert stage.notes[-1].facts == {"role": "b", "guarantee": "cpus 1"}
    assert "allocate" in stage.timers


def test_what_is_set_as_it_was_leaves_no_trace(stage: Stage) -> None:
    stage.ask(SetRole(role="ads", weight=2.0))
    stage.run()
    before, told = memory(stage), len(stage.notes)
    for command in (
        SetRole(role="ads", weight=2.0),
        UpdateWeights(weights=(("ads", 2.0),)),
        UpdateQuota(quotas=(Quota(role="ads"), Quota(role="unknown"))),
        UpdateQuota(),
    ):
        effects = stage.give(Asked(1, command))
        assert [type(e) for e in effects] == [Reply]
    assert (memory(stage), len(stage.notes)) == (before, told)


def test_a_role_is_forgotten_alone_and_only_once(stage: Stage) -> None:
    stage.ask(SetRole(role="ads", weight=2.0))
    stage.ask(SetRole(role="ads/etl", weight=3.0))
    stage.ask(RemoveRole(role="ads"))
    assert stage.core.state.weights == {"ads/etl": 3.0}
    assert (shown(stage, "ads")["set"], shown(stage, "ads/etl")["set"]) == (False, True)
    assert "nothing is set of role ads" in refused(stage, RemoveRole(role="ads"), NotFound)
    stage.ask(RemoveRole(role="ads/etl"))
    assert "nobody uses role ads" in refused(stage, GetRoles(role="ads"), NotFound)


def test_weights_that_an_older_release_wrote_are_taken_over_once() -> None:
    records = (
        Stored("roles/ads", encode_record(RoleSettings(weight=9.0, priority=3))),
        Stored("weights/ads", encode_record(WeightRecord(2.0))),
        Stored("weights/ads/etl", encode_record(WeightRecord(0.5))),
    )
    stage = Stage(records=records)
    assert stage.core.state.roles == {"ads": RoleSettings(weight=2.0, priority=3), "ads/etl": RoleSettings(weight=0.5)}
    assert sorted(stage.store) == ["epoch", "roles/ads", "roles/ads/etl"]
    assert stage.restart().core.state.roles == stage.core.state.roles


def test_a_record_without_the_newer_fields_is_read() -> None:
    class Old(msgspec.Struct):
        weight: float

    stage = Stage(records=(Stored("roles/ads", msgspec.msgpack.encode(Old(2.0))),))
    assert stage.core.state.roles == {"ads": RoleSettings(weight=2.0)}


# What is refused.


@pytest.mark.parametrize("role", ["", "/", "a//b", "/a", "a/", "-x", "a/-b", ".", "a/..", "a/*", "a b", "a\tb"])
def test_a_name_that_no_role_can_have_is_refused_by_every_command(stage: Stage, role: str) -> None:
    quota = Quota(role=role, limit=amounts(cpus=1))
    for command in (
        SetRole(role=role, weight=2.0),
        UpdateWeights(weights=(("fine", 2.0), (role, 2.0))),
        UpdateQuota(quotas=(Quota(role="fine", limit=amounts(cpus=1)), quota)),
        SetQuota(quota=quota),
    ):
        assert "role" in refused(stage, command, Invalid)


@pytest.mark.parametrize("role", ["a" * 256, "ü" * 128, "a\x00b", "a\x7fb"])
def test_a_name_that_could_not_be_part_of_a_key_is_refused(stage: Stage, role: str) -> None:
    refused(stage, SetRole(role=role), Invalid)
    stage.ask(SetRole(role="ü" * 127))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"weight": 0.0}, "is to weigh 0; give a number above 0"),
        ({"weight": -1.0}, "is to weigh -1"),
        ({"weight": float("inf")}, "is to weigh inf"),
        ({"weight": float("nan")}, "is to weigh nan"),
        ({"weight": 1e-300}, "is to weigh 1e-300"),
        ({"priority": -1}, "the priority -1; it must be 0 to 1023"),
        ({"priority": 1024}, "the priority 1024"),
        ({"max_tasks": -1}, "at most -1 tasks"),
        ({"max_tasks": 10**18}, "tasks; it must be 0 to 1000000000"),
        ({"half_life_s": 0.0}, "a half-life of 0 s; it must be above 0"),
        ({"half_life_s": float("nan")}, "a half-life of nan s"),
        ({"half_life_s": float("inf")}, "a half-life of inf s"),
        ({"strategy": "best"}, "names the strategy 'best'; there are spread, binpack"),
        ({"guarantee": amounts(cpus=2), "limit": amounts(cpus=1)}, "2 cpus guaranteed to it"),
        ({"guarantee": amounts(gpus=1), "limit": amounts(gpus=0)}, "but a limit of 0; raise the limit"),
    ],
)
def test_a_number_out_of_its_range_is_refused_even_by_force(stage: Stage, more: dict[str, Any], words: str) -> None:
    stage.ask(SetRole(role="ads", weight=2.0))
    assert words in refused(stage, SetRole(role="ads", **more), Invalid)
    assert words in refused(stage, SetRole(role="ads", force=True, **more), Invalid)


def test_the_ends_of_each_range_are_taken(stage: Stage) -> None:
    stage.ask(SetRole(role="a", weight=1e-6, priority=0, max_tasks=0, half_life_s=1e-3, limit=amounts(cpus=0)))
    stage.ask(SetRole(role="b", weight=1e6, priority=1023, max_tasks=10**9, half_life_s=1e9))
    assert shown(stage, "a")["limit"] == {"cpus": 0.0}


# Guarantees.


def test_guarantees_must_fit_the_cluster_together_unless_forced(stage: Stage) -> None:
    stage.ask(SetRole(role="a", guarantee=amounts(cpus=6)))
    words = refused(stage, SetRole(role="b", guarantee=amounts(cpus=3)), Conflict)
    assert words == (
        "all guarantees together need 9 cpus and the cluster has 8; lower them, add agents, or force it"
    )  # fmt: skip
    refused(stage, SetRole(role="b", guarantee=amounts(unobtainium=1)), Conflict)
    stage.ask(SetRole(role="b", guarantee=amounts(cpus=2)))
    stage.ask(SetRole(role="b", guarantee=amounts(cpus=30), force=True))
    stage.ask(SetRole(role="c", weight=2.0))
    refused(stage, SetRole(role="c", guarantee=amounts(cpus=1)), Conflict)
    stage.ask(SetRole(role="b", guarantee=amounts(cpus=20)))


def test_agents_that_are_away_for_a_moment_count_for_guarantees(stage: Stage) -> None:
    away = stage.agent(agent_info("h3"))
    away.close()
    stage.ask(SetRole(role="a", guarantee=amounts(cpus=12)))
    later = stage.restart()
    later.ask(SetRole(role="a", guarantee=amounts(cpus=11)))
    refused(later, SetRole(role="b", guarantee=amounts(cpus=2)), Conflict)


def test_a_guarantee_below_another_is_part_of_it(stage: Stage) -> None:
    stage.ask(SetRole(role="ads", guarantee=amounts(cpus=6)))
    stage.ask(SetRole(role="ads/etl", guarantee=amounts(cpus=4)))
    stage.ask(SetRole(role="ads/web", guarantee=amounts(cpus=2)))
    stage.ask(SetRole(role="other", guarantee=amounts(cpus=2)))
    refused(stage, SetRole(role="ads/web", guarantee=amounts(cpus=3)), Conflict)


def test_a_limit_above_holds_for_the_guarantees_below(stage: Stage) -> None:
    stage.ask(SetRole(role="ads", limit=amounts(cpus=4)))
    stage.ask(SetRole(role="ads/etl/nightly", guarantee=amounts(cpus=3)))
    for command in (
        SetRole(role="ads/web", guarantee=amounts(cpus=2), force=True),
        SetRole(role="ads", limit=amounts(cpus=2), force=True),
        UpdateQuota(quotas=(Quota(role="ads", limit=amounts(cpus=2)),), force=True),
    ):
        assert "guaranteed to it and the roles below it" in refused(stage, command, Invalid)
    stage.ask(SetRole(role="ads/web", guarantee=amounts(cpus=1)))


# Limits.


def test_a_limit_below_what_tasks_use_needs_force(busy: tuple[Stage, Framework]) -> None:
    stage, _ = busy
    for role in ("ads", "ads/etl"):
        words = refused(stage, SetRole(role=role, limit=amounts(cpus=2)), Conflict)
        assert f"tasks of role {role} and the roles below it use 3 cpus, more than the new limit of 2" in words
        stage.ask(SetRole(role=role, limit=amounts(cpus=2), force=True))
        stage.ask(SetRole(role=role, weight=3.0))
        stage.ask(SetRole(role=role, limit=amounts(cpus=2, mem=4096)))
        refused(stage, SetRole(role=role, limit=amounts(cpus=2.5)), Conflict)
        stage.ask(SetRole(role=role, limit=()))
    stage.ask(SetRole(role="other", limit=amounts(cpus=0)))


def test_fewer_tasks_than_run_need_force(busy: tuple[Stage, Framework]) -> None:
    stage, _ = busy
    assert "run 1 tasks, more than the new limit of 0" in refused(stage, SetRole(role="ads", max_tasks=0), Conflict)
    stage.ask(SetRole(role="ads", max_tasks=0, force=True))
    stage.ask(SetRole(role="ads", priority=1))
    stage.ask(SetRole(role="ads", max_tasks=1))


def test_offers_beyond_a_new_limit_are_taken_back_and_no_more_than_these(busy: tuple[Stage, Framework]) -> None:
    stage, framework = busy
    oldest, newest = stage.core.state.offers.values()
    assert shown(stage, "ads")["consumed"]["cpus"] == 8.0
    stage.ask(SetRole(role="ads", limit=amounts(cpus=7)))
    assert framework.rescinded() == [newest.offer.id]
    assert shown(stage, "ads")["consumed"]["cpus"] == 7.0
    stage.ask(SetRole(role="ads", limit=amounts(cpus=3)))
    assert framework.rescinded() == [oldest.offer.id]
    assert shown(stage, "ads/etl")["consumed"] == {"cpus": 3.0, "mem": 512.0}


def test_offers_without_what_is_limited_and_offers_of_others_stay(stage: Stage) -> None:
    framework = stage.framework(role="ads")
    other = stage.framework(role="adsandmore")
    framework.want(want("w", role="ads", resources=bundle(0, 512)))
    other.want(want("w", role="adsandmore", resources=bundle(2, 512)))
    stage.run()
    held = list(stage.core.state.offers)
    assert len(held) == 2
    stage.ask(SetRole(role="ads", limit=amounts(cpus=0)))
    assert list(stage.core.state.offers) == held
    assert framework.rescinded() == []
    stage.ask(SetRole(role="ads", limit=amounts(mem=0)))
    assert len(framework.rescinded()) == 1
    assert other.rescinded() == []


def test_coarse_offers_are_taken_back_before_shaped_ones(stage: Stage) -> None:
    plain = stage.framework(role="ads/plain")
    (first, second) = plain.offers()
    plain.decline(second, refuse_s=1000)
    shaped = stage.framework(role="ads/shaped")
    shaped.want(want("w", role="ads/shaped", resources=bundle(2, 512)))
    stage.run()
    stage.ask(SetRole(role="ads", limit=amounts(cpus=2)))
    assert plain.rescinded() == [first.id]
    assert shaped.rescinded() == []


# Mesos' commands.


def test_weights_are_updated_together_or_not_at_all(stage: Stage) -> None:
    stage.ask(UpdateWeights(weights=(("a", 2.0), ("b/c", 0.5), ("*", 3.0))))
    assert stage.core.state.weights == {"a": 2.0, "b/c": 0.5, "*": 3.0}
    refused(stage, UpdateWeights(weights=(("a", 5.0), ("b", 0.0))), Invalid)
    stage.ask(UpdateWeights(weights=(("a", 1.0),)))
    assert shown(stage, "a")["set"] is True
    stage.ask(UpdateWeights())


def test_quotas_are_updated_together_or_not_at_all(stage: Stage) -> None:
    stage.ask(SetRole(role="a", weight=2.0))
    fine = Quota(role="a", guarantee=amounts(cpus=1), limit=amounts(cpus=2))
    refused(stage, UpdateQuota(quotas=(fine, Quota(role="b", guarantee=amounts(cpus=100)))), Conflict)
    refused(
        stage, UpdateQuota(quotas=(fine, Quota(role="b", guarantee=amounts(cpus=2), limit=amounts(cpus=1)))), Invalid
    )
    stage.ask(UpdateQuota(quotas=(fine, Quota(role="b", limit=amounts(mem=10)))))
    assert shown(stage, "a")["weight"] == 2.0
    stage.ask(UpdateQuota(quotas=(Quota(role="a"), Quota(role="b"))))
    assert stage.core.state.roles == {"a": RoleSettings(weight=2.0)}, "with its quota the last word on b is gone"
    assert "roles/b" not in stage.store


def test_the_older_calls_set_a_quota_once_and_remove_it_once(stage: Stage) -> None:
    quota = Quota(role="a", guarantee=amounts(cpus=1), limit=amounts(cpus=1))
    refused(stage, RemoveQuota(role="a"), Invalid)
    refused(stage, SetQuota(quota=Quota(role="a", guarantee=amounts(cpus=9), limit=amounts(cpus=9))), Conflict)
    stage.ask(SetQuota(quota=quota))
    assert "has a quota already" in refused(stage, SetQuota(quota=quota, force=True), Invalid)
    stage.ask(RemoveQuota(role="a"))
    assert stage.core.state.roles == {}
    stage.ask(SetQuota(quota=Quota(role="a", guarantee=amounts(cpus=9), limit=amounts(cpus=9)), force=True))


# What is shown.


def test_roles_are_shown_as_a_tree_with_what_they_hold_together(busy: tuple[Stage, Framework]) -> None:
    stage, framework = busy
    night = stage.framework(role="ads/etl/nightly")
    night.want(want("w", 5, role="ads/etl/nightly", resources=bundle(0.5, 64)))
    night.want(want("w", 5, role="ads/etl/nightly", resources=bundle(100, 64)))
    stage.run()
    stage.ask(SetRole(role="zoo", guarantee=amounts(cpus=1)))
    rows = {r["name"]: r for r in stage.ask(GetRoles())["roles"]}
    assert list(rows) == ["ads", "ads/etl", "ads/etl/nightly", "zoo"]
    assert [r["parent"] for r in rows.values()] == [None, "ads", "ads/etl", None]
    ads, etl = rows["ads"], rows["ads/etl"]
    assert (ads["frameworks"], etl["frameworks"]) == ([], [framework.id])
    assert (ads["allocated"], ads["tasks"], ads["waiting"]) == ({}, 1, 5)
    assert ads["consumed"] == etl["consumed"] == etl["allocated"]
    assert (etl["tasks"], rows["ads/etl/nightly"]["tasks"]) == (1, 0)
    assert ads["share"] == pytest.approx(1.0)
    assert rows["zoo"]["share"] == 0.0


def test_the_snapshot_has_the_same_roles(busy: tuple[Stage, Framework]) -> None:
    stage, _ = busy
    stage.ask(SetRole(role="zoo", limit=amounts(cpus=1)))
    rows = {row.name: row for row in stage.ask(GetCluster(tasks=False)).roles}
    assert list(rows) == ["ads", "ads/etl", "zoo"]
    assert describe(rows["ads"].consumed) == describe(rows["ads/etl"].allocated)
    assert (rows["ads"].allocated, rows["ads"].settings, rows["zoo"].limit) == ((), None, amounts(cpus=1))


@pytest.mark.parametrize(
    ("weights", "active", "expected"),
    [
        ({}, [], {"a": 1.0, "a/x": 1.0, "a/y": 1.0, "b": 1.0}),
        ({"b": 3.0}, ["a/x", "b"], {"a": 0.25, "a/x": 0.25, "a/y": 0.125, "b": 0.75}),
        ({"a/x": 2.0}, ["a/x", "a/y"], {"a": 1.0, "a/x": 2 / 3, "a/y": 1 / 3, "b": 0.5}),
        ({}, ["a", "a/x", "b"], {"a": 0.5, "a/x": 0.25, "a/y": 1 / 6, "b": 0.5}),
    ],
)
def test_a_fair_share_is_divided_by_weight_among_those_who_want_something(
    weights: dict[str, float], active: list[str], expected: dict[str, float]
) -> None:
    found = role_tree.fair_shares(["a", "a/x", "a/y", "b"], weights, active)
    assert {role: found[role] for role in expected} == pytest.approx(expected)


names = st.sampled_from(["a", "a/x", "a/x/1", "a/y", "b", "b/x"])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(names, st.sampled_from([0.5, 1.0, 3.0])),
    st.sets(st.sampled_from(["a/x/1", "a/y", "b/x"]), min_size=1),
)
def test_the_fair_shares_of_active_leaves_are_the_whole_cluster(weights: dict[str, float], active: set[str]) -> None:
    roles = sorted(["a", "a/x", "a/x/1", "a/y", "b", "b/x"], key=tree_order)
    found = role_tree.fair_shares(roles, weights, active)
    assert sum(found[role] for role in active) == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.integers(0, 5)))
def test_what_is_promised_covers_each_role_and_those_below_it(guarantees: dict[str, int]) -> None:
    roles = {name: RoleSettings(guarantee=amounts(cpus=milli)) for name, milli in guarantees.items()}
    found = role_tree.promised(roles)
    for name, milli in guarantees.items():
        for above in line_of(name):
            below = sum(v for k, v in guarantees.items() if k != above and is_within(k, above) and k.count("/") == 2)
            assert found[above]["cpus"] >= max(milli, below) * 1000
    tops = sum(found[name]["cpus"] for name in ("a", "b") if name in found)
    assert found[""]["cpus"] == tops


# The form of corral's own API.


def test_a_form_says_what_to_set_and_null_takes_away() -> None:
    body = b'{"weight": 2, "guarantee": {"mem": 64, "cpus": 1.5, "gpus": 0}, "limit": {"cpus": 4, "gpus": 0}}'
    assert read_set_role("a", body, force=True) == SetRole(
        role="a", weight=2.0, guarantee=amounts(cpus=1.5, mem=64), limit=amounts(cpus=4, gpus=0), force=True
    )
    body = b'{"max_tasks": null, "half_life_s": null, "guarantee": null, "limit": {}, "priority": 0, "strategy": ""}'
    assert read_set_role("a", body, force=False) == SetRole(
        role="a", max_tasks=None, half_life_s=None, guarantee=(), limit=(), priority=0, strategy=""
    )
    assert read_set_role("a", b"{}", force=False) == SetRole(role="a")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"x"', b'{"wieght": 2}',
        b'{"weight": "2"}', b'{"weight": null}', b'{"weight": true}',
        b'{"priority": 1.5}', b'{"priority": null}', b'{"max_tasks": "many"}', b'{"strategy": null}',
        b'{"guarantee": {"cpus": "1"}}', b'{"guarantee": {"cpus": -1}}', b'{"guarantee": {"cpus": 1e13}}',
        b'{"guarantee": {"": 1}}', b'{"guarantee": [1]}', b'{"limit": {"cpus": null}}', b'{"limit": {"cpus": 1e400}}',
        b'{"half_life_s": "1h"}', b"[" * 100_000, b'{"weight": 2, "force": true}',
    ],
)  # fmt: skip
def test_a_form_of_another_kind_is_refused_with_words(body: bytes) -> None:
    with pytest.raises(Invalid) as error:
        read_set_role("ads", body, force=False)
    assert "role ads" in error.value.message


def test_consumption_follows_offers_down_to_nothing(stage: Stage) -> None:
    framework = stage.framework(role="ads/etl")
    offers = framework.offers()
    assert shown(stage, "ads")["consumed"] == {"cpus": 8.0, "mem": 8192.0}
    framework.decline(*offers, refuse_s=1000)
    assert shown(stage, "ads")["consumed"] == {}
