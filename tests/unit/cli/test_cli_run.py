"""What `corral run` means by its words, as a Marathon app."""

from typing import Any

import pytest

from corral.cli.services import _definition, app_id
from corral.lib.errors import Invalid


def definition(*words: str, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "process": False, "name": None, "instances": 1, "cpus": 0.1, "mem": 64.0, "ports": (), "env": (), "volumes": (),
        "constraints": (),
    }  # fmt: skip
    return _definition(words, **{**options, **changes})


def test_an_image_with_a_port_is_bridged_and_named_after_the_image() -> None:
    app = definition("registry:5000/tools/My_Busybox:1.36", "httpd", "-f", ports=("80", "8080:81"), instances=2)
    assert app["id"] == "/my-busybox"
    assert app["args"] == ["httpd", "-f"]
    assert app["networks"] == [{"mode": "container/bridge"}]
    assert app["container"]["portMappings"] == [
        {"containerPort": 80, "hostPort": 0, "protocol": "tcp"},
        {"containerPort": 81, "hostPort": 8080, "protocol": "tcp"},
    ]


def test_an_image_without_command_runs_its_own() -> None:
    app = definition("nginx")
    assert "args" not in app
    assert "cmd" not in app
    assert app["portDefinitions"] == []


def test_a_process_takes_all_words_as_its_command() -> None:
    app = definition("/bin/sh", "-c", "sleep 1", process=True, name="ticker", ports=("0",))
    assert app["id"] == "/ticker"
    assert app["args"] == ["/bin/sh", "-c", "sleep 1"]
    assert "container" not in app
    assert app["portDefinitions"] == [{"port": 0, "protocol": "tcp"}]


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ((), {}, "nothing to run"),
        (("nginx",), {"ports": ("http",)}, "'http' is not of the form 80 or 8080:80"),
        (("nginx",), {"env": ("NAME",)}, "'NAME' is not of the form -e NAME=VALUE"),
        (("nginx",), {"volumes": ("/data",)}, "'/data' is not of the form"),
        (("nginx",), {"volumes": ("/a:/b:rx",)}, "'/a:/b:rx' is not of the form"),
        (("sleep",), {"process": True, "volumes": ("/a:/b",)}, "-v needs an image"),
    ],
)
def test_words_that_do_not_fit_are_refused_with_the_right_form(
    words: tuple[str, ...], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        definition(*words, **changes)


@pytest.mark.parametrize(("typed", "meant"), [("web", "/web"), ("/web", "/web"), ("a/b/", "/a/b")])
def test_a_name_means_the_absolute_id(typed: str, meant: str) -> None:
    assert app_id(typed) == meant
