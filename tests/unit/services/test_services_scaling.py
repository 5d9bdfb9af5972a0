"""Elastic services: when an app grows and shrinks by itself, and what it may ask for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from corral.frameworks.services.command_spec import DeleteApp
from corral.frameworks.services.discovery_spec import ReportTraffic, WatchBalancer
from corral.frameworks.services.scaling import bounds_at, decide
from corral.frameworks.services.scaling_routes import read_scaling
from corral.frameworks.services.scaling_spec import (
    GetScaling,
    GetUsage,
    Metric,
    Moved,
    Push,
    Resize,
    ScalingRecord,
    SetScaling,
    Window,
)
from corral.frameworks.services.state import task_ids_of
from corral.lib.errors import Conflict, Forbidden, NotFound, Unprocessable
from corral.sdk.effects import Measured
from corral.sdk.measure import read_statistics

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC).timestamp()  # a Wednesday
BY_CPU = ScalingRecord(app="/web", least=2, most=10, targets={Metric.CPU: 50.0})


def after(record: ScalingRecord, instances: int, **values: float) -> int:
    found = decide(record, instances, {Metric(k): v for k, v in values.items()}, NOON)
    assert found is None or found.why
    return instances if found is None else found.instances


@pytest.mark.parametrize(
    ("instances", "cpu", "wanted"),
    [(4, 100.0, 8), (4, 50.0, 4), (4, 54.9, 4), (4, 60.0, 5), (4, 25.0, 2), (4, 1.0, 2), (4, 400.0, 10), (1, 1.0, 2),
     (12, 500.0, 10)],
)  # fmt: skip
def test_the_number_is_what_brings_each_instance_to_its_target(instances: int, cpu: float, wanted: int) -> None:
    assert after(BY_CPU, instances, cpu=cpu) == wanted


def test_what_is_not_known_moves_nothing() -> None:
    assert after(BY_CPU, 4) == 4
    both = ScalingRecord(app="/web", least=1, most=10, targets={Metric.CPU: 50.0, Metric.QUEUE: 10.0})
    assert after(both, 4, cpu=1.0) == 4
    assert after(both, 4, queue=20.0) == 8


def test_the_metric_that_needs_most_counts() -> None:
    both = ScalingRecord(app="/web", least=1, most=20, targets={Metric.CPU: 50.0, Metric.REQUESTS: 100.0})
    found = decide(both, 4, {Metric.CPU: 10.0, Metric.REQUESTS: 300.0}, NOON)
    assert found is not None
    assert (found.instances, found.why) == (12, "requests is 300 per instance, 100 is aimed at")


def test_growing_and_shrinking_have_their_own_patience() -> None:
    moved = Moved(at=NOON - 100, before=2, after=4, by="auto", why="x")
    record = ScalingRecord(app="/web", least=1, most=10, targets={Metric.CPU: 50.0}, history=(moved,))
    assert after(record, 4, cpu=100.0) == 8
    assert after(record, 4, cpu=10.0) == 4
    late = ScalingRecord(
        app="/web", least=1, most=10, targets={Metric.CPU: 50.0}, history=(moved,), up_cooldown_s=200,
        down_cooldown_s=50,
    )  # fmt: skip
    assert after(late, 4, cpu=100.0) == 4
    assert after(late, 4, cpu=10.0) == 1


def test_bounds_are_kept_at_once_whatever_the_patience() -> None:
    moved = Moved(at=NOON - 1, before=2, after=4, by="auto", why="x")
    record = ScalingRecord(app="/web", least=5, most=10, history=(moved,))
    assert after(record, 4) == 5


@pytest.mark.parametrize(
    ("begin", "end", "days", "holds"),
    [
        (8 * 60, 18 * 60, (2,), True), (8 * 60, 12 * 60, (2,), False), (8 * 60, 18 * 60, (3,), False),
        (22 * 60, 13 * 60, (1,), True), (22 * 60, 11 * 60, (1,), False), (11 * 60, 3 * 60, (2,), True),
    ],
)  # fmt: skip
def test_a_window_has_bounds_of_its_own_even_over_midnight(begin: int, end: int, days: Any, holds: bool) -> None:
    window = Window(begin=begin, end=end, days=days, least=6, most=8)
    record = ScalingRecord(app="/web", least=1, most=3, windows=(window,))
    assert bounds_at(record, NOON)[:2] == ((6, 8) if holds else (1, 3))
    assert after(record, 2) == (6 if holds else 2)


# At work.


def set_rules(cluster: Any, app_id: str = "/web", **fields: Any) -> Any:
    return cluster.ask(SetScaling(id=app_id, record=read_scaling({"max": 10, **fields}, app_id)))


def use(cluster: Any, cpus: float, mem_bytes: int = 1 << 20, app_id: str = "/web") -> None:
    """Every instance uses so much for a while."""
    for _ in range(2):
        cluster.seconds = getattr(cluster, "seconds", 0.0) + cpus * 10
        tasks = [t for i in cluster.running(app_id) for t in task_ids_of(i)]
        cluster.send(Measured(dict.fromkeys(tasks, (cluster.seconds, mem_bytes))))
        cluster.advance(10)


def test_an_app_grows_by_its_usage_and_says_why(cluster: Any) -> None:
    cluster.create(instances=2, cpus=0.5)
    cluster.work()
    set_rules(cluster, min=1, targets={"cpu": 50})
    use(cluster, 0.5)
    cluster.work()
    assert len(cluster.running()) == 4
    (moved,) = cluster.ask(GetScaling(id="/web"))["history"]
    assert (moved["before"], moved["after"], moved["by"]) == (2, 4, "auto")
    assert "cpu is 100 per instance" in moved["why"]
    cluster.crash()
    assert cluster.ask(GetScaling(id="/web"))["history"] == [moved]


def test_nodes_are_asked_once_each_and_only_about_what_is_watched(cluster: Any) -> None:
    cluster.create(instances=3)
    cluster.work()
    cluster.advance(100)
    assert cluster.measured == []
    cluster.ask(GetUsage(id="/web"))
    cluster.advance(1)
    assert cluster.measured == [("10.0.0.1:4681",)]
    cluster.send(Measured({}))
    cluster.advance(2000)
    assert len(cluster.measured) == 2, "the second question was never answered, so there is no third"


def test_usage_is_shown_per_instance_with_its_short_history(cluster: Any) -> None:
    cluster.create(instances=2)
    cluster.work()
    cluster.ask(GetUsage(id="/web"))
    use(cluster, 0.2, 5 << 20)
    shown = cluster.ask(GetUsage(id="/web"))
    assert [len(i["history"]) for i in shown["instances"]] == [2, 2]
    assert shown["instances"][0]["history"][-1]["cpus"] == pytest.approx(0.2)
    assert shown["total"]["memBytes"] == 10 << 20
    for _ in range(40):
        use(cluster, 0.2)
        cluster.ask(GetUsage(id="/web"))
    assert len(cluster.ask(GetUsage(id="/web"))["instances"][0]["history"]) == 60


def test_what_is_pushed_scales_until_it_is_old(cluster: Any) -> None:
    cluster.create(instances=2)
    cluster.work()
    set_rules(cluster, min=1, targets={"queue": 10}, downCooldownSeconds=0)
    cluster.ask(Push(id="/web", metric=Metric.QUEUE, value=30, source="a"))
    cluster.ask(Push(id="/web", metric=Metric.QUEUE, value=20, source="b"))
    cluster.advance(11)
    cluster.work()
    assert len(cluster.running()) == 5
    cluster.advance(300)
    assert cluster.app().spec.instances == 5


def test_what_balancers_measure_scales(cluster: Any) -> None:
    cluster.create(instances=2)
    cluster.work()
    set_rules(cluster, min=1, targets={"requests": 100})
    for name, rate in (("a", 300.0), ("b", 200.0)):
        cluster.ask(ReportTraffic(balancer=name, apps={"/web": rate}))
    cluster.advance(11)
    assert cluster.app().spec.instances == 5


def test_what_waits_at_balancers_scales_beside_what_is_pushed_until_the_balancer_has_left(cluster: Any) -> None:
    cluster.create(instances=2)
    cluster.work()
    set_rules(cluster, min=1, targets={"queue": 10}, downCooldownSeconds=0)
    cluster.ask(WatchBalancer(name="a", groups=("external",)))
    cluster.ask(ReportTraffic(balancer="a", apps={}, queues={"/web": 30.0, "/other": 7.0, "/gone": -1.0}))
    cluster.ask(Push(id="/web", metric=Metric.QUEUE, value=20, source="rabbit"))
    assert cluster.ask(GetUsage(id="/web"))["balanced"] == {"queue": {"a": 30.0}}
    cluster.advance(11)
    cluster.work()
    assert len(cluster.running()) == 5
    cluster.ask(WatchBalancer(name="a", present=False))
    assert cluster.ask(GetUsage(id="/web"))["balanced"] == {}


def test_the_app_itself_may_grow_within_its_bounds_by_its_token(cluster: Any) -> None:
    cluster.create(instances=2)
    cluster.work()
    set_rules(cluster, min=1, max=4)
    cluster.update_app(cmd="sleep 99999")
    cluster.work()
    variables = dict(cluster.launched[-1].command.environment)
    token = variables["CORRAL_SCALING_TOKEN"]
    assert variables["CORRAL_SCALING_URL"].endswith("/corral/v1/scaling/web")
    _, found = cluster.ask(Resize(id="/web", by=2, token=token, why="a long queue"))
    assert found == {"id": "/web", "before": 2, "instances": 4}
    assert cluster.ask(GetScaling(id="/web", token=token))["history"][0]["by"] == "app"
    cluster.work()
    for wrong in ("scaling-wrong", ""):
        with pytest.raises(Forbidden, match="CORRAL_SCALING_TOKEN"):
            cluster.ask(Resize(id="/web", by=1, token=wrong))
    with pytest.raises(Unprocessable) as refused:
        cluster.ask(Resize(id="/web", by=1, token=token))
    assert "outside of 1 to 4" in refused.value.details["/by"][0]
    cluster.create(id="/other")
    with pytest.raises(Forbidden):
        cluster.ask(GetUsage(id="/other", token=token))


def test_shrinking_may_name_who_goes(cluster: Any) -> None:
    cluster.create(instances=3)
    cluster.work()
    victim = cluster.running()[0].id
    cluster.ask(Resize(id="/web", by=-1, instances=(victim,)))
    cluster.work()
    assert victim not in cluster.app().instances
    assert len(cluster.running()) == 2
    with pytest.raises(NotFound):
        cluster.ask(Resize(id="/web", by=-1, instances=("gone",)))


def test_an_app_under_deployment_is_left_alone(cluster: Any) -> None:
    cluster.create(instances=2, cpus=0.5)
    set_rules(cluster, min=5)
    cluster.advance(30)
    assert cluster.app().spec.instances == 2
    with pytest.raises(Conflict):
        cluster.ask(Resize(id="/web", by=3))
    cluster.work()
    cluster.advance(11)
    assert cluster.app().spec.instances == 5


def test_rules_that_are_off_or_gone_move_nothing(cluster: Any) -> None:
    cluster.create(instances=2)
    cluster.work()
    set_rules(cluster, min=5, enabled=False)
    cluster.advance(60)
    assert cluster.app().spec.instances == 2
    cluster.ask(SetScaling(id="/web", record=None))
    with pytest.raises(NotFound, match="PUT"):
        cluster.ask(GetScaling(id="/web"))
    set_rules(cluster, min=1)
    cluster.ask(DeleteApp(id="/web"))
    cluster.work()
    assert cluster.lasting() == {}


def test_rules_keep_their_token_when_they_change(cluster: Any) -> None:
    cluster.create()
    set_rules(cluster)
    token = cluster.state.elastic.records["/web"].token
    shown = set_rules(cluster, min=1, schedule=[{"from": "22:00", "to": "06:00", "days": ["sat"], "min": 1, "max": 2}])
    assert cluster.state.elastic.records["/web"].token == token
    assert "token" not in shown
    assert read_scaling(shown, "/web").windows == cluster.state.elastic.records["/web"].windows


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/max", {"min": 1}), ("/min", {"min": 5, "max": 2}), ("/min", {"min": -1, "max": 2}),
        ("/targets/cpu", {"max": 2, "targets": {"cpu": 0}}), ("/targets/speed", {"max": 2, "targets": {"speed": 1}}),
        ("/schedule(0)/from", {"max": 2, "schedule": [{"from": "25:00", "to": "08:00", "max": 1}]}),
        ("/schedule(0)/days", {"max": 2, "schedule": [{"from": "05:00", "to": "08:00", "days": ["noday"], "max": 1}]}),
        ("/schedule(0)/min", {"max": 2, "schedule": [{"from": "05:00", "to": "08:00", "min": 2, "max": 1}]}),
        ("/upCooldownSeconds", {"max": 2, "upCooldownSeconds": -1}), ("/maximum", {"max": 2, "maximum": 3}),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused_by_their_place(path: str, body: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as refused:
        read_scaling(body, "/web")
    assert path in refused.value.details


def test_statistics_are_read_by_task() -> None:
    told = [
        {"executor_id": "t1", "statistics": {"cpus_user_time_secs": 1.5, "cpus_system_time_secs": 0.5,
                                             "mem_rss_bytes": 7}},
        {"executor_id": "t2", "statistics": {}},
    ]  # fmt: skip
    assert read_statistics(told) == {"t1": (2.0, 7)}
    assert read_statistics({"odd": 1}) == {}
