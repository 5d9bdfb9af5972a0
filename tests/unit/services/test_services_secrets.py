"""Secrets in app files: Marathon's form, what of it makes no sense, what an app does when a value changes."""

from typing import Any

import pytest

from corral.frameworks.services.command_spec import CreateApp
from corral.frameworks.services.discovery_spec import SecretChanged
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.pod_dialect import read_pod, write_pod
from corral.frameworks.services.record_spec import AppRecord
from corral.frameworks.services.shown import write_app
from corral.lib.errors import Unprocessable
from corral.model.task import TaskState
from corral.sdk.effects import Signalled

APP: dict[str, Any] = {
    "id": "/web", "cmd": "true", "cpus": 0.1, "mem": 32,
    "env": {"A": "1", "PW": {"secret": "pw"}},
    "secrets": {"pw": {"source": "db/password"}, "c": {"source": "config:app.conf"}},
    "container": {"type": "MESOS", "volumes": [
        {"containerPath": "conf", "secret": "c"}, {"containerPath": "/d", "hostPath": "/h", "mode": "RO"},
    ]},
}  # fmt: skip


def test_marathons_form_is_read_and_shown_as_it_was_written() -> None:
    found = read_app(APP)
    assert found.unknown == ()
    shown = write_app(found.spec)
    assert shown["env"] == APP["env"]
    assert shown["secrets"] == APP["secrets"]
    assert {"containerPath": "conf", "secret": "c"} in shown["container"]["volumes"]
    again = read_app(shown).spec
    assert (again.env_secrets, again.secrets, again.container) == (
        found.spec.env_secrets, found.spec.secrets, found.spec.container,
    )  # fmt: skip
    assert "secrets" not in write_app(read_app({"id": "/a", "cmd": "true"}).spec)


def test_a_task_names_sources_and_has_no_value(cluster: Any) -> None:
    cluster.create(**{k: v for k, v in APP.items() if k != "id"})
    cluster.run()
    (task,) = cluster.launched
    assert task.command.secrets == (("PW", "secret:db/password"),)
    assert [v.secret for v in task.container.volumes] == [None, "config:app.conf"]
    assert "PW" not in dict(task.command.environment)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"env": {"X": {"secret": "none"}}}, "/env/X/secret"),
        ({"env": {"X": {"secret": 7}}}, "/env/X"),
        ({"env": {"X": {"other": "pw"}}}, "/env/X"),
        ({"secrets": {"pw": {"source": "../etc"}}}, "/secrets/pw/source"),
        ({"secrets": {"pw": "db"}}, "/secrets/pw"),
        ({"secrets": [1]}, "/secrets"),
        ({"labels": {"CORRAL_SECRETS_CHANGE": "perhaps"}}, "/labels/CORRAL_SECRETS_CHANGE"),
        ({"labels": {"CORRAL_SECRETS_CHANGE": "signal:SIGKILL"}}, "/labels/CORRAL_SECRETS_CHANGE"),
        ({"labels": {"CORRAL_SECRETS_CHANGE": "restart:SIGHUP"}}, "/labels/CORRAL_SECRETS_CHANGE"),
        ({"container": {"type": "MESOS", "volumes": [{"containerPath": "x", "secret": "none"}]}},
         "/container/volumes(0)/secret"),
        ({"container": {"type": "MESOS", "volumes": [{"containerPath": "../x", "secret": "pw"}]}},
         "/container/volumes(0)/containerPath"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_path(cluster: Any, change: dict[str, Any], path: str) -> None:
    fields = {**{k: v for k, v in APP.items() if k != "id"}, **change}
    with pytest.raises(Unprocessable) as caught:
        cluster.create(**fields)
    assert path in caught.value.details


def test_an_env_that_is_given_anew_replaces_references_too(cluster: Any) -> None:
    cluster.create(**{k: v for k, v in APP.items() if k != "id"})
    cluster.run()
    cluster.update_app(env={"A": "2"})
    assert cluster.app().spec.env_secrets == {}
    assert cluster.app().spec.secrets


@pytest.mark.parametrize(
    ("label", "source", "restarted"),
    [
        ("restart", "secret:db/password", True), ("restart", "config:app.conf", True),
        ("restart", "config:db/password", False), ("nothing", "secret:db/password", False),
        ("", "secret:db/password", False),
    ],
)  # fmt: skip
def test_a_value_that_changes_restarts_the_apps_that_ask_for_it(
    cluster: Any, label: str, source: str, restarted: bool
) -> None:
    labels = {"CORRAL_SECRETS_CHANGE": label} if label else {}
    cluster.create(**{k: v for k, v in APP.items() if k != "id"}, labels=labels)
    cluster.run()
    assert not cluster.state.deployments
    cluster.ask(SecretChanged(source=source))
    cluster.settle()
    assert bool(cluster.state.deployments) is restarted
    if restarted:
        cluster.ask(SecretChanged(source=source))
        assert any(n.what == "app not restarted" for n in cluster.notes)


SIGNALLED = {**{k: v for k, v in APP.items() if k != "id"}, "labels": {"CORRAL_SECRETS_CHANGE": "signal:SIGUSR1"}}


def test_a_value_that_changes_is_told_by_a_signal_to_every_instance_and_restarts_none(cluster: Any) -> None:
    cluster.create(**SIGNALLED, instances=2)
    cluster.work()
    cluster.ask(SecretChanged(source="secret:db/password"))
    assert {s.task_id for s in cluster.signals} == set(cluster.task_ids())
    assert {(s.signal, s.renew, s.node) for s in cluster.signals} == {("SIGUSR1", True, "10.0.0.1:4681")}
    assert "signal/web" in cluster.records
    for task_id in cluster.task_ids():
        cluster.send(Signalled(task_id))
    assert "signal/web" not in cluster.records
    assert not cluster.state.deployments
    cluster.ask(SecretChanged(source="secret:other"))
    assert len(cluster.signals) == 2


def test_a_signal_that_did_not_come_through_is_sent_again_and_given_up_with_a_warning(cluster: Any) -> None:
    cluster.create(**SIGNALLED)
    cluster.work()
    (task_id,) = cluster.task_ids()
    cluster.ask(SecretChanged(source="secret:db/password"))
    for count in range(1, 11):
        assert len(cluster.signals) == count
        cluster.send(Signalled(task_id, "the agent does not answer"))
        cluster.advance(61)
    assert len(cluster.signals) == 10
    assert "signal/web" not in cluster.records
    (note,) = [n for n in cluster.notes if n.what == "task not signalled"]
    assert "does not answer" in note.why


def test_the_next_leader_signals_what_the_last_one_had_not_and_no_instance_that_came_later(cluster: Any) -> None:
    cluster.create(**SIGNALLED)
    cluster.work()
    old = cluster.task_ids()
    cluster.ask(SecretChanged(source="secret:db/password"))
    cluster.advance(1)
    cluster.update_app(instances=2)
    cluster.work()
    cluster.signals.clear()
    cluster.crash()
    assert [s.task_id for s in cluster.signals] == old
    cluster.send(Signalled(old[0]))
    assert "signal/web" not in cluster.records


def test_an_instance_that_has_ended_meanwhile_needs_no_signal_any_more(cluster: Any) -> None:
    cluster.create(**SIGNALLED)
    cluster.work()
    (task_id,) = cluster.task_ids()
    cluster.ask(SecretChanged(source="secret:db/password"))
    cluster.update(task_id, TaskState.FAILED)
    cluster.send(Signalled(task_id, "no such task"))
    assert "signal/web" not in cluster.records
    cluster.advance(100)
    assert len(cluster.signals) == 1


POD: dict[str, Any] = {
    "id": "/pod",
    "secrets": {"pw": {"source": "db/password"}, "c": {"source": "config:app.conf"}, "own": {"source": "own"}},
    "environment": {"PW": {"secret": "pw"}, "A": "1", "B": {"secret": "pw"}},
    "labels": {"CORRAL_SECRETS_CHANGE": "signal"},
    "volumes": [{"name": "conf", "secret": "c"}, {"name": "work"}],
    "containers": [
        {"name": "one", "exec": {"command": {"shell": "true"}}, "environment": {"PW": {"secret": "own"}, "B": "2"},
         "volumeMounts": [{"name": "conf", "mountPath": "app.conf"}, {"name": "work", "mountPath": "w"}]},
        {"name": "two", "exec": {"command": {"shell": "true"}}, "environment": {"A": {"secret": "own"}}},
    ],
}  # fmt: skip


def test_secrets_of_pods_are_read_and_shown_as_they_were_written() -> None:
    spec, unknown = read_pod(POD)
    assert unknown == ()
    record = AppRecord(spec=spec, version="v", config="v", scaled_at="v", configured_at="v")
    shown = write_pod(record)
    assert shown["environment"] == POD["environment"]
    assert shown["secrets"] == POD["secrets"]
    assert sorted(map(str, shown["volumes"])) == sorted(map(str, POD["volumes"]))
    assert shown["containers"][0]["environment"] == {"PW": {"secret": "own"}, "B": "2"}
    assert read_pod(shown)[0] == spec


def test_each_container_of_a_pod_names_its_secrets_and_what_it_says_itself_wins(cluster: Any) -> None:
    cluster.ask(CreateApp(spec=read_pod(POD)[0]))
    cluster.settle()
    cluster.run()
    one, two = cluster.launched
    assert one.command.secrets == (("PW", "secret:own"),)
    assert dict(one.command.environment)["B"] == "2"
    assert two.command.secrets == (("A", "secret:own"), ("B", "secret:db/password"), ("PW", "secret:db/password"))
    assert "A" not in dict(two.command.environment)
    assert [(v.container_path, v.secret, v.of_executor) for v in one.container.volumes] == [
        ("app.conf", "config:app.conf", False), ("w", None, True),
    ]  # fmt: skip
    cluster.ask(SecretChanged(source="config:app.conf"))
    assert [(s.task_id, s.signal) for s in cluster.signals] == [(one.task_id, "SIGHUP")]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"environment": {"X": {"secret": "none"}}}, "/environment/X/secret"),
        ({"environment": {"X": {"secret": 7}}}, "/environment/X"),
        ({"secrets": {"pw": {"source": "../etc"}}}, "/secrets/pw/source"),
        ({"volumes": [{"name": "conf", "secret": "none"}, {"name": "work"}]}, "/volumes/conf/secret"),
        ({"volumes": [{"name": "conf", "secret": "c", "host": "/h"}, {"name": "work"}]}, "/volumes(0)/secret"),
        ({"volumes": [{"name": "conf", "secret": "c"}, {"name": "work"}, {"name": "conf"}]}, "/volumes(2)/name"),
        ({"labels": {"CORRAL_SECRETS_CHANGE": "perhaps"}}, "/labels/CORRAL_SECRETS_CHANGE"),
        ({"containers": [{"name": "a", "exec": {"command": {"shell": "x"}}, "environment": {"X": {"secret": "n"}}}]},
         "/containers(0)/environment/X/secret"),
    ],
)  # fmt: skip
def test_secrets_of_pods_that_make_no_sense_are_refused_by_their_path(
    cluster: Any, change: dict[str, Any], path: str
) -> None:
    with pytest.raises(Unprocessable) as caught:
        cluster.ask(CreateApp(spec=read_pod({**POD, **change})[0]))
    assert path in caught.value.details
