"""Whatever a client puts in the place of an app's field, the answer is an app or a refusal with words, never a bug."""

import copy
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from corral.frameworks.services.marathon import read_app, read_update, read_updates
from corral.lib.errors import Invalid

APP: dict[str, Any] = {
    "id": "/shop/web", "cmd": "sleep 1000", "args": ["a"], "user": "root", "env": {"A": "b", "S": {"secret": "x"}},
    "instances": 2, "cpus": 0.1, "mem": 16, "disk": 0, "gpus": 0, "resourceLimits": {"cpus": "unlimited", "mem": 50},
    "executor": "", "constraints": [["rack", "LIKE", "a.*"], ["hostname", "UNIQUE"], ["rack", "GROUP_BY", "2"]],
    "labels": {"a": "b"}, "requirePorts": False, "networks": [{"mode": "host"}], "dependencies": ["../b"],
    "container": {
        "type": "MESOS", "volumes": [{"containerPath": "/a", "hostPath": "/b", "mode": "RO"}],
        "docker": {
            "image": "x", "forcePullImage": True, "parameters": [{"key": "a", "value": "b"}], "network": "BRIDGE",
            "portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": 0, "protocol": "tcp", "name": "a"}],
        },
        "portMappings": [{"containerPort": 80, "hostPort": 0, "labels": {"a": "b"}}],
    },
    "portDefinitions": [{"port": 0, "protocol": "tcp", "name": "http", "labels": {}}], "ports": [0, 8080],
    "ipAddress": {"networkName": "x", "labels": {}, "discovery": {"ports": [{"number": 1, "name": "a"}]}},
    "fetch": [{"uri": "http://x/y.tgz", "extract": True, "executable": False, "cache": False, "destPath": "z"}],
    "uris": ["http://x/z.tgz"], "healthChecks": [{"protocol": "HTTP", "path": "/", "portIndex": 0}],
    "readinessChecks": [{"name": "r", "path": "/", "portName": "http"}], "backoffSeconds": 1, "backoffFactor": 1.5,
    "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.5}, "maxLaunchDelaySeconds": 10,
    "taskKillGracePeriodSeconds": 1, "killSelection": "YOUNGEST_FIRST", "acceptedResourceRoles": ["*"],
    "unreachableStrategy": {"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2}, "role": "x", "tty": True,
    "residency": {"taskLostBehavior": "WAIT_FOREVER"}, "secrets": {"x": {"source": "y"}},
    "version": "2020-01-01T00:00:00.000Z",
}  # fmt: skip

FIELDS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5),
    st.sampled_from(
        [2**63, 10**30, 1e308, "", "/", "..", "1.5", "BRIDGE", [], {}, [None], [[]], [{}], ["a"], {"a": {"b": {}}},
         {"": ""}, {"value": None}, [1, 2, "x"], "a\0b", "a" * 2000]
    ),
)  # fmt: skip


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@st.composite
def spoiled(draw: st.DrawFn) -> Any:
    """Some fields of an app, with one to three places in them replaced or left out."""
    kept = draw(st.sets(st.sampled_from(sorted(APP))))
    root: list[Any] = [copy.deepcopy({key: value for key, value in APP.items() if key in kept or key in ("id", "cmd")})]
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from([p for p in places(root) if p]))
        parent: Any = root
        for key in path:
            parent = parent[key]
        if isinstance(parent, dict) and draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = copy.deepcopy(draw(FIELDS))
    return root[0]


@settings(max_examples=400, deadline=None)
@given(spoiled())
def test_a_spoiled_app_is_taken_or_refused_with_words(app: Any) -> None:
    for read in (read_app, lambda value: read_update(value, "/shop/web", any_id=True), lambda v: read_updates([v])):
        with suppress(Invalid):
            read(app)
