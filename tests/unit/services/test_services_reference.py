"""The reference of apps is written from the types, and app files as they are found in Marathon's world are taken."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from corral.frameworks.services import Config
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.tree import read_group
from corral.frameworks.services.validate import check_app, complete

ROOT = Path(__file__).parents[3]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_app_reference", ROOT / "scripts/gen_app_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_apps_is_up_to_date() -> None:
    found = generator()
    written = found.PLACE.read_text(encoding="utf-8")
    assert written == found.page(), "run .venv/bin/python scripts/gen_app_reference.py"
    assert "`healthChecks` | list of [healthChecks[]](#healthchecks)" in written


FILES: dict[str, dict[str, Any]] = {
    "a plain command": {"id": "tick", "cmd": "while true; do date; sleep 5; done", "cpus": 0.1, "mem": 10.0},
    "a server with its port": {
        "id": "/site", "cmd": "python3 -m http.server $PORT0", "cpus": 0.25, "mem": 64, "instances": 3, "ports": [0],
        "healthChecks": [{"protocol": "HTTP", "path": "/", "portIndex": 0, "gracePeriodSeconds": 3,
                          "intervalSeconds": 10, "timeoutSeconds": 10, "maxConsecutiveFailures": 3}],
    },
    "the old bridge of Docker": {
        "id": "bridged", "cmd": "python3 -m http.server 8080", "cpus": 0.5, "mem": 64.0, "instances": 2,
        "container": {"type": "DOCKER", "docker": {
            "image": "python:3", "network": "BRIDGE",
            "portMappings": [{"containerPort": 8080, "hostPort": 0, "servicePort": 9000, "protocol": "tcp"},
                             {"containerPort": 161, "hostPort": 0, "protocol": "udp"}]}},
        "healthChecks": [{"protocol": "COMMAND", "command": {"value": "curl -f http://localhost:8080/"}}],
    },
    "an image with parameters and volumes": {
        "id": "/stores/keys", "instances": 1, "cpus": 0.5, "mem": 256, "args": ["--save", "60"],
        "container": {"type": "DOCKER",
                      "docker": {"image": "registry.example.org/keys:7", "forcePullImage": True, "privileged": False,
                                 "parameters": [{"key": "hostname", "value": "keys.example.org"},
                                                {"key": "log-driver", "value": "json-file"}]},
                      "volumes": [{"containerPath": "/data", "hostPath": "/var/keys", "mode": "RW"}]},
        "constraints": [["hostname", "CLUSTER", "node7.example.org"]], "labels": {"owner": "storage"},
    },
    "everything about timing": {
        "id": "/slow/start", "args": ["/usr/bin/serve", "--slow"], "env": {"LD_LIBRARY_PATH": "/opt/lib"},
        "executor": "", "cpus": 1.5, "mem": 256.0, "disk": 0, "backoffSeconds": 1, "backoffFactor": 1.15,
        "maxLaunchDelaySeconds": 3600, "taskKillGracePeriodSeconds": 30, "killSelection": "OLDEST_FIRST",
        "uris": ["http://files.example.org/app.tgz"], "dependencies": ["/slow/db", "../cache"],
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.2},
        "acceptedResourceRoles": ["*"], "requirePorts": False,
        "unreachableStrategy": {"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600},
        "constraints": [["rack_id", "GROUP_BY", "3"], ["hostname", "UNIQUE"], ["kernel", "LIKE", "5\\..*"]],
    },
    "the networks of today": {
        "id": "/net", "container": {"type": "DOCKER", "docker": {"image": "nginx:1"},
                                    "portMappings": [{"containerPort": 80, "hostPort": 0, "name": "http",
                                                      "labels": {"VIP_0": "/web:80"}}]},
        "networks": [{"mode": "container/bridge"}], "cpus": 0.1, "mem": 32,
        "readinessChecks": [{"name": "ready", "portName": "http", "path": "/ready", "httpStatusCodesForReady": [200]}],
    },
    "an address of its own": {
        "id": "/own", "container": {"type": "DOCKER", "docker": {"image": "nginx", "network": "USER"}},
        "ipAddress": {"networkName": "backend", "labels": {"a": "b"},
                      "discovery": {"ports": [{"number": 80, "name": "http", "protocol": "tcp"}]}},
        "cpus": 0.1, "mem": 32,
    },
    "ports with names and labels": {
        "id": "/named", "cmd": "serve $PORT_HTTP", "portDefinitions": [
            {"port": 10080, "protocol": "tcp", "name": "http", "labels": {"VIP_0": "10.0.0.1:80"}},
            {"port": 0, "protocol": "udp,tcp", "name": "mixed"}],
        "requirePorts": True, "cpus": 0.1, "mem": 32,
        "fetch": [{"uri": "https://files.example.org/x.zip", "executable": False, "extract": True, "cache": True,
                   "destPath": "lib/x.zip"}],
    },
    "one at most": {
        "id": "/single", "cmd": "serve", "instances": 1, "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"},
        "upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0},
    },
    "a talk's image behind a balancer": {
        "id": "/talk/web", "instances": 4, "cpus": 0.2, "mem": 128,
        "container": {"type": "DOCKER", "docker": {"image": "shop/web:1.4", "network": "BRIDGE",
                                                   "portMappings": [{"containerPort": 5000}]}},
        "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "shop.example.org", "HAPROXY_0_MODE": "http"},
        "healthChecks": [{"path": "/health", "protocol": "MESOS_HTTP", "intervalSeconds": 5}],
        "env": {"DB_HOST": "db.talk.example.org"},
    },
    "an image without the Engine's word": {
        "id": "/universal", "cmd": "nginx -g 'daemon off;'", "cpus": 0.1, "mem": 64,
        "container": {"type": "MESOS", "docker": {"image": "nginx:1", "forcePullImage": True}},
    },
    "a database that keeps its data": {
        "id": "/pg", "cpus": 1, "mem": 256, "instances": 1, "networks": [{"mode": "container/bridge"}],
        "container": {"type": "DOCKER", "docker": {"image": "postgres:16"},
                      "portMappings": [{"containerPort": 5432, "hostPort": 0, "protocol": "tcp", "name": "pg"}],
                      "volumes": [{"containerPath": "pgdata", "mode": "RW",
                                   "persistent": {"type": "root", "size": 512, "constraints": []}}]},
        "residency": {"taskLostBehavior": "WAIT_FOREVER", "relaunchEscalationTimeoutSeconds": 3600},
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0},
        "unreachableStrategy": "disabled",
    },
    "a file that stays between runs": {
        "id": "notes", "cmd": "touch data/`date +%s` && sleep 60", "cpus": 0.1, "mem": 32, "instances": 2,
        "container": {"volumes": [{"containerPath": "data", "mode": "RW", "persistent": {"size": 100}}],
                      "type": "MESOS"},
    },
    "a volume of a driver": {
        "id": "/vol", "instances": 1, "cpus": 0.1, "mem": 32,
        "container": {"type": "DOCKER", "docker": {"image": "alpine:3", "network": "HOST", "forcePullImage": True},
                      "volumes": [{"containerPath": "/data", "mode": "RW",
                                   "external": {"name": "orders", "provider": "dvdi", "size": 5,
                                                "options": {"dvdi/driver": "rexray"}}}]},
        "upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0},
    },
    "secrets as variables and files": {
        "id": "/sealed", "cmd": "env; cat pw", "cpus": 0.1, "mem": 32,
        "env": {"PW": {"secret": "one"}, "PLAIN": "x"}, "secrets": {"one": {"source": "team/password"}},
        "container": {"type": "MESOS", "volumes": [{"containerPath": "pw", "secret": "one"}]},
    },
    "two GPUs": {"id": "/train", "cmd": "nvidia-smi && ./train", "cpus": 1, "mem": 512, "gpus": 2, "instances": 1},
    "limits above what is asked": {
        "id": "/burst", "cmd": "./burst", "cpus": 0.5, "mem": 128, "executorResources": {"cpus": 0.1, "mem": 64},
        "resourceLimits": {"cpus": "unlimited", "mem": 512},
    },
    "all forms of checks": {
        "id": "/checked", "cmd": "serve $PORT0 $PORT1", "cpus": 0.1, "mem": 32, "ports": [0, 0],
        "healthChecks": [
            {"protocol": "TCP", "portIndex": 1, "maxConsecutiveFailures": 0},
            {"protocol": "HTTPS", "port": 443, "path": "/up", "ignoreHttp1xx": True},
            {"protocol": "COMMAND", "command": {"value": "test -f /tmp/up"}, "delaySeconds": 5},
            {"protocol": "MESOS_HTTP", "path": "/api", "portIndex": 0, "timeoutSeconds": 10},
        ],
        "check": {"exec": {"command": {"shell": "true"}}, "intervalSeconds": 30},
    },
    "every operator of constraints": {
        "id": "/placed", "cmd": "sleep 100", "cpus": 0.1, "mem": 32, "instances": 4,
        "constraints": [["hostname", "UNIQUE"], ["rack", "CLUSTER", "r1"], ["rack", "GROUP_BY"],
                        ["zone", "MAX_PER", "2"], ["os", "LIKE", "linux|bsd"], ["os", "UNLIKE", "windows.*"],
                        ["cores", "IS", "8"],
                        ["@zone", "group_by", "3"], ["@hostname", "like", "n[1-9]"]],
    },
    "fields that nobody has used for years": {
        "id": "/old", "cmd": "sleep 100", "cpus": 0.1, "mem": 32, "ports": [8080, 9000], "requirePorts": True,
        "uris": ["https://files.example.org/a.tar.gz", "hdfs.sh"], "user": "nobody", "executor": "//cmd",
        "upgradeStrategy": {"minimumHealthCapacity": 1}, "healthChecks": [{"protocol": "HTTP", "path": None}],
        "container": None, "args": None, "labels": {"a": ""},
        "unreachableStrategy": {"unreachableInactiveAfterSeconds": 300, "unreachableExpungeAfterSeconds": 600},
    },
    "what a server tells of an app, sent back": {
        "id": "/again", "cmd": "sleep 100", "cpus": 0.1, "mem": 32, "tasksStaged": 0, "tasksRunning": 1,
        "tasksHealthy": 0, "tasksUnhealthy": 0, "deployments": [{"id": "x"}], "tasks": [{"id": "t"}],
        "lastTaskFailure": {"appId": "/again"}, "version": "2026-01-01T00:00:00.000Z",
        "versionInfo": {"lastScalingAt": "2026-01-01T00:00:00.000Z"}, "readinessCheckResults": [], "tty": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_app_files_of_marathons_world_are_taken_whole(name: str) -> None:
    found = read_app(FILES[name])
    assert found.unknown == ()
    config = Config()
    check_app(found.spec, config)
    check_app(complete(found.spec, config), config)


def test_a_group_file_with_dependencies_is_taken_whole() -> None:
    body = {
        "id": "/product",
        "groups": [
            {"id": "/product/database", "apps": [{"id": "/product/database/store", "cmd": "serve db"}]},
            {"id": "service", "dependencies": ["/product/database"],
             "apps": [{"id": "api", "cmd": "serve api", "dependencies": ["../database/store"]}]},
        ],
    }  # fmt: skip
    found = read_group(body, "/")
    assert found.unknown == ()
    assert found.update.groups is not None
    assert found.update.groups[1].dependencies == ("/product/database",)
