"""External volumes: what the Docker Engine is told of them, what makes no sense, whose they are."""

from typing import Any

import pytest

from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.shown import write_app
from corral.lib.errors import Unprocessable

VOLUME: dict[str, Any] = {
    "containerPath": "/data", "mode": "RW",
    "external": {"name": "orders", "provider": "dvdi", "size": 10, "options": {"dvdi/driver": "rexray"}},
}  # fmt: skip


def fields(*volumes: dict[str, Any], **more: Any) -> dict[str, Any]:
    container = {"type": "DOCKER", "docker": {"image": "postgres:16"}, "volumes": list(volumes)}
    return {"cmd": None, "container": container, **more}


def volume(path: str = "/data", mode: str = "RW", **external: Any) -> dict[str, Any]:
    return {"containerPath": path, "mode": mode, "external": {**VOLUME["external"], **external}}


def test_the_form_is_read_and_shown_as_it_was_written() -> None:
    found = read_app({"id": "/a", **fields(VOLUME, volume("logs", "RO", name="logs", shared=True))})
    assert found.unknown == ()
    shown = write_app(found.spec)
    assert shown["container"]["volumes"] == [VOLUME, volume("logs", "RO", name="logs", shared=True)]
    assert read_app(shown).spec.container == found.spec.container


def test_the_engine_is_told_the_driver_and_the_mounts(cluster: Any) -> None:
    cluster.create(**fields(VOLUME, volume("logs", "RO", name="logs")))
    cluster.run()
    (task,) = cluster.launched
    assert [(p.key, p.value) for p in task.container.docker.parameters] == [
        ("volume-driver", "rexray"), ("volume", "orders:/data:rw"), ("volume", "logs:/mnt/mesos/sandbox/logs:ro"),
    ]  # fmt: skip
    assert cluster.show()["upgradeStrategy"] == {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0}


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/container/volumes(0)/external/name", fields(volume(name=None))),
        ("/container/volumes(0)/external/name", fields(volume(name="a:b"))),
        ("/container/volumes(0)/external/provider", fields(volume(provider=None))),
        ("/container/volumes(0)/external/provider", fields(volume(provider="csi"))),
        ("/container/volumes(0)/external/options", fields(volume(options={}))),
        ("/container/volumes(0)/external/size", fields(volume(size=0))),
        ("/container/volumes(0)/containerPath", fields(volume("a/../../b"))),
        ("/container/volumes", fields(VOLUME, volume("/b", name="b", options={"dvdi/driver": "other"}))),
        ("/instances", fields(VOLUME, instances=2)),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_path(cluster: Any, path: str, given: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as caught:
        cluster.create(**given)
    assert path in caught.value.details


def test_a_volume_is_one_apps_unless_all_share_it(cluster: Any) -> None:
    cluster.create(**fields(VOLUME))
    with pytest.raises(Unprocessable) as caught:
        cluster.create(id="/other", **fields(VOLUME))
    assert "is that of app /web" in caught.value.details["/container/volumes"][0]
    with pytest.raises(Unprocessable):
        cluster.create(id="/other", **fields(volume(shared=True)))
    for name in ("/one", "/two"):
        cluster.create(id=name, **fields(volume(name="common", shared=True), instances=3))
    assert cluster.update_app(env={"A": "1"}, force=True), "its own is no obstacle"
