"""Secrets in app files: Marathon's form, what of it makes no sense, what an app does when a value changes."""

from typing import Any

import pytest

from corral.frameworks.services.discovery_spec import SecretChanged
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.shown import write_app
from corral.lib.errors import Unprocessable

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
