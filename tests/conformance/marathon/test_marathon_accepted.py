"""Apps on what agents have reserved for their role, on real daemons: a balancer of public agents, and others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corral_daemons import Site, ask, run_corral, wait_running, wait_until
from tests.own_ports import free_ports, task_ports

ROLE = "slave_public"
PORTS = task_ports()
PUBLIC = range(PORTS.start, PORTS.start + 50)
BALANCER: dict[str, Any] = {
    "id": "/marathon-lb", "cmd": "exec sleep 1000", "instances": 2, "cpus": 1, "mem": 128, "requirePorts": True,
    "acceptedResourceRoles": [ROLE], "constraints": [["hostname", "UNIQUE"]],
    "ports": [PUBLIC[0], PUBLIC[1], PUBLIC[2]], "env": {"HAPROXY_SSL_CERT": ""},
    "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.2},
}  # fmt: skip
"""As DC/OS had it, apart from the program."""


SLEEP: dict[str, Any] = {"cmd": "exec sleep 1000", "cpus": 0.5, "mem": 32}


def resources(*, public: float) -> str:
    plain = f"cpus:2;mem:1024;disk:1024;ports:[{PUBLIC.stop}-{PORTS.stop - 1}]"
    if not public:
        return plain
    return (
        f"{plain};cpus({ROLE}):{public:g};mem({ROLE}):512;disk({ROLE}):64;ports({ROLE}):[{PUBLIC[0]}-{PUBLIC[-1]}]"
    )  # fmt: skip


class Cluster:
    """A master with the services framework inside, which is in the role of public agents."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.master = site.master("--set", f"services.role={ROLE}")
        self.url = self.master.url

    def agent(self, name: str, *, public: float = 0) -> None:
        self.site.agent(
            self.master.url, "--work-dir", str(self.site.directory / name), "--set", f"agent.name={name}",
            "--resources", resources(public=public),
        )  # fmt: skip

    def restart_master(self) -> None:
        listen = self.master.url.removeprefix("http://")
        self.master.kill()
        self.master = self.site.master("--set", f"services.role={ROLE}", listen=listen)

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        found = ask(self.url if path.startswith("/v2") else self.master.url, method, path, body)
        assert found[0] == status, found
        return found[1]

    def tasks(self, app_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = wait_running(self.url, app_id, self.wanted(app_id))["tasks"]
        return found

    def wanted(self, app_id: str) -> int:
        found: int = self.call("GET", f"/v2/apps/{app_id}")["app"]["instances"]
        return found

    def hosts(self, app_id: str) -> list[str]:
        return sorted(task["host"] for task in self.tasks(app_id))

    def reserved_in_use(self) -> dict[str, float]:
        """The cpus that tasks hold of what is reserved, by agent."""
        found: dict[str, float] = {}
        for task in self.call("GET", "/tasks")["tasks"]:
            if task["state"] == "TASK_RUNNING":
                for each in self.resources_of(task["id"]):
                    if each["name"] == "cpus" and each.get("role", "*") == ROLE:
                        found[task["slave_id"]] = found.get(task["slave_id"], 0) + each["scalar"]["value"]
        return found

    def resources_of(self, task_id: str) -> list[dict[str, Any]]:
        tasks = self.call("POST", "/api/v1", {"type": "GET_TASKS"})["get_tasks"]["tasks"]
        (found,) = [task for task in tasks if task["task_id"]["value"] == task_id]
        return list(found["resources"])

    def reason(self, app_id: str) -> tuple[dict[str, int], list[str]]:
        """Which rows of the queue have turned agents away, and the words for it."""
        items = self.call("GET", "/v2/queue")["queue"]
        found = [i for i in items if i.get("app", i.get("pod"))["id"] == app_id]
        if not found:
            return {}, []
        summary = found[0]["processedOffersSummary"]
        rows = {row["reason"]: row["declined"] for row in summary["rejectSummaryLastOffers"] if row["declined"]}
        return rows, [reason["detail"] for reason in summary.get("reasons", [])]

    def suppressed(self) -> bool:
        """Whether nothing that is reserved is asked for."""
        frameworks = self.call("GET", "/corral/v1/frameworks")["frameworks"]
        (services,) = [each for each in frameworks if each["name"] == "services"]
        return ROLE in services["suppressed_roles"]


class Apart(Cluster):
    """The services framework as a process of its own, whose apps keep off what is reserved unless they ask for it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        config = site.directory / "master.toml"
        config.write_text("[master]\nframeworks = []\n")
        self.master = site.master("--config", str(config))
        self.listen = f"127.0.0.1:{free_ports(1)[0]}"
        self.start_framework()

    def start_framework(self) -> None:
        self.framework = self.site.services(
            self.master.url, "--set", f"services.role={ROLE}", "--set", "services.use_reserved=false",
            listen=self.listen,
        )  # fmt: skip
        self.url = self.framework.url


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Site(tmp_path) as site:
        yield Cluster(site)


def roles_of(resources: list[dict[str, Any]]) -> set[str]:
    return {each.get("role", "*") for each in resources}


def test_a_balancer_runs_once_on_each_public_agent_through_all_that_happens(cluster: Cluster) -> None:
    url = cluster.master.url
    cluster.agent("private1")
    cluster.call("POST", "/v2/apps", BALANCER, 201)
    wait_until(lambda: cluster.reason("/marathon-lb")[0] == {"UnfulfilledRole": 1}, "the reason")
    (detail,) = cluster.reason("/marathon-lb")[1]
    assert detail.startswith(f"nothing that is free and reserved for role {ROLE} has been offered")
    told = run_corral(url, "explain", "/marathon-lb")
    assert "nothing that is free and reserved" in told.out, told
    assert run_corral(url, "explain", "/marathon-lb", "--if", "cpus=1").code == 2
    planned = run_corral(url, "plan", "-", stdin=json.dumps(BALANCER))
    assert "/marathon-lb is not in the plan: it takes only what is reserved" in planned.err, planned
    assert not cluster.suppressed()

    cluster.agent("public1", public=2)
    cluster.agent("public2", public=2)
    assert cluster.hosts("marathon-lb") == ["public1", "public2"]
    tasks = cluster.tasks("marathon-lb")
    assert {(task["role"], tuple(task["ports"])) for task in tasks} == {(ROLE, tuple(PUBLIC[:3]))}
    assert all(roles_of(cluster.resources_of(task["id"])) == {ROLE} for task in tasks)
    wait_until(cluster.suppressed, "nothing asked for while nothing waits")

    # Others of the role run on what is for everybody, or on either.
    cluster.call("POST", "/v2/apps", {**SLEEP, "id": "/plain", "instances": 2, "acceptedResourceRoles": ["*"]}, 201)
    assert all(roles_of(cluster.resources_of(t["id"])) == {"*"} for t in cluster.tasks("plain"))

    # A new master knows it all again, and goes on.
    before = sorted(task["id"] for task in tasks)
    cluster.restart_master()
    assert sorted(task["id"] for task in cluster.tasks("marathon-lb")) == before
    cluster.call("PUT", "/v2/apps/marathon-lb", {"instances": 3})
    wait_until(lambda: "UnfulfilledConstraint" in cluster.reason("/marathon-lb")[0], "one on each agent and no more")
    cluster.restart_master()
    wait_until(lambda: "UnfulfilledConstraint" in cluster.reason("/marathon-lb")[0], "the same after a restart", 60)
    cluster.agent("public3", public=2)
    assert cluster.hosts("marathon-lb") == ["public1", "public2", "public3"]

    # Rolled over in place, killed and scaled down: what is reserved comes back as such each time.
    before = sorted(task["id"] for task in cluster.tasks("marathon-lb"))
    cluster.call("POST", "/v2/apps/marathon-lb/restart")
    wait_until(lambda: not {t["id"] for t in cluster.tasks("marathon-lb")} & set(before), "all of them anew")
    assert cluster.hosts("marathon-lb") == ["public1", "public2", "public3"]
    victim = cluster.tasks("marathon-lb")[0]["id"]
    cluster.call("DELETE", f"/v2/apps/marathon-lb/tasks/{victim}")
    wait_until(lambda: victim not in {t["id"] for t in cluster.tasks("marathon-lb")}, "another in its place")
    assert cluster.hosts("marathon-lb") == ["public1", "public2", "public3"]
    assert set(cluster.reserved_in_use().values()) == {1}
    cluster.call("PUT", "/v2/apps/marathon-lb", {"instances": 1})
    assert len(cluster.tasks("marathon-lb")) == 1
    cluster.call("DELETE", "/v2/apps/marathon-lb")
    wait_until(lambda: not cluster.reserved_in_use(), "the end of what was reserved in use")
    wait_until(cluster.suppressed, "nothing asked for any more")


def test_apps_and_pods_that_take_either_use_all_there_is(cluster: Cluster) -> None:
    cluster.agent("public1", public=1)
    cluster.call("POST", "/v2/apps", {**SLEEP, "id": "/either", "instances": 6}, 201)
    tasks = cluster.tasks("either")
    held = [roles_of(cluster.resources_of(task["id"])) for task in tasks]
    assert (held.count({ROLE}), held.count({"*"})) == (2, 4)
    cluster.call("DELETE", "/v2/apps/either")
    wait_until(lambda: not cluster.call("GET", "/v2/deployments"), "the end")
    container = {"exec": {"command": {"shell": "exec sleep 1000"}}, "resources": {"cpus": 0.2, "mem": 32}}
    pod = {
        "id": "/pod", "networks": [{"mode": "host"}], "containers": [{"name": n, **container} for n in ("a", "b")],
        "scheduling": {"placement": {"acceptedResourceRoles": [ROLE]}}, "scaling": {"kind": "fixed", "instances": 3},
    }  # fmt: skip
    cluster.call("POST", "/v2/pods", pod, 201)

    def two_run() -> Any:
        found = cluster.call("GET", "/v2/pods/pod::status")["instances"]
        return [i for i in found if i["status"] == "STABLE"] if len(found) >= 2 else None

    stable = wait_until(lambda: (found := two_run()) and len(found) == 2 and found, "as many as fit")
    assert {instance["role"] for instance in stable} == {ROLE}
    wait_until(lambda: set(cluster.reason("/pod")[0]) & {"InsufficientCpus", "UnfulfilledRole"}, "why the third waits")
    assert set(cluster.reserved_in_use().values()) == {0.8}, "and the executors hold the rest"
    cluster.agent("public2", public=1)
    wait_until(lambda: len(two_run() or ()) == 3, "the third")


def test_what_an_operator_reserves_is_for_apps_too_and_what_bears_labels_is_not(cluster: Cluster) -> None:
    cluster.agent("node1")
    (agent,) = wait_until(lambda: cluster.call("GET", "/slaves")["slaves"], "the agent")

    def reserve(cpus: float, mem: float, **reservation: Any) -> None:
        rows = [
            {"name": name, "type": "SCALAR", "scalar": {"value": value},
             "reservations": [{"type": "DYNAMIC", "role": ROLE, **reservation}]}
            for name, value in (("cpus", cpus), ("mem", mem))
        ]  # fmt: skip
        body = {"agent_id": {"value": agent["id"]}, "resources": rows}
        cluster.call("POST", "/api/v1", {"type": "RESERVE_RESOURCES", "reserve_resources": body}, 202)

    reserve(0.5, 64, labels={"labels": [{"key": "for", "value": "somebody"}]})
    cluster.call(
        "POST", "/v2/apps", {**SLEEP, "id": "/web", "portDefinitions": [], "acceptedResourceRoles": [ROLE]}, 201
    )
    wait_until(lambda: cluster.reason("/web")[0], "the reason")
    reserve(0.5, 64)
    (task,) = cluster.tasks("web")
    (cpus,) = [each for each in cluster.resources_of(task["id"]) if each["name"] == "cpus"]
    assert "labels" not in str(cpus)


def test_a_framework_of_its_own_that_dies_goes_on_where_it_was(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        cluster = Apart(site)
        cluster.agent("public1", public=1)
        cluster.call("POST", "/v2/apps", {**SLEEP, "id": "/private", "instances": 2}, 201)
        assert all(roles_of(cluster.resources_of(task["id"])) == {"*"} for task in cluster.tasks("private"))
        waiting = {**SLEEP, "id": "/web", "instances": 3, "acceptedResourceRoles": [ROLE]}
        cluster.call("POST", "/v2/apps", waiting, 201)

        def running() -> set[str]:
            tasks = cluster.call("GET", "/v2/apps/web")["app"]["tasks"]
            return {task["id"] for task in tasks if task["state"] == "TASK_RUNNING"}

        wait_until(lambda: len(running()) == 2, "as many as fit")
        wait_until(lambda: "InsufficientCpus" in cluster.reason("/web")[0], "why the third waits")
        before = running()
        cluster.framework.kill()
        cluster.start_framework()
        wait_until(lambda: len(cluster.tasks("private")) == 2 and running() == before, "the same tasks")
        wait_until(lambda: "InsufficientCpus" in cluster.reason("/web")[0], "the same reason")
        assert not cluster.suppressed()
        cluster.agent("public2", public=0.5)
        wait_until(lambda: running() > before, "the third on the next agent")
        wait_until(cluster.suppressed, "nothing asked for while nothing waits")
