"""The judgement of a node: each thing that is wrong is found alone, with what to do about it."""

from typing import Any

import msgspec
import pytest

from corral.cli.systemd import write_unit
from corral.doctor.checks import Finding, Verdict, examine, worst
from corral.doctor.facts import (
    CertificateFacts,
    DiskFacts,
    DockerFacts,
    Facts,
    MasterFacts,
    PortFacts,
    UnitFacts,
)
from corral.doctor.probe import read_docker
from corral.lib.errors import Invalid

NOW = 1_000_000.0
DAY = 86_400.0
PROCESS = UnitFacts(loaded=True, kill_mode="process", delegate=True, restart="always")
DOCKER = DockerFacts(
    url="unix:///run/docker.sock", version="20.10.24", live_restore=True, log_driver="json-file", containerd="abc"
)
DISK = DiskFacts(path="/var/lib/corral/agent", kind="ext4", free_bytes=50 << 30, free_share=0.5, free_files_share=0.9)
CERTIFICATE = CertificateFacts(name="node1", kind="agent", not_before=NOW - 10 * DAY, not_after=NOW + 80 * DAY)
GOOD = Facts(
    now=NOW, kernel=(6, 18), programs=frozenset({"bwrap", "iptables", "systemctl"}), docker=DOCKER,
    units={"corral-agent.service": PROCESS, "corral-master.service": PROCESS, "docker.service": PROCESS},
    clock_synchronised=True, disks=(DISK,), ports=(PortFacts(address="0.0.0.0:4681"),),
    masters=(MasterFacts(url="https://10.0.0.5:4680", ready=True, ahead_s=0.4),), certificate=CERTIFICATE, exposed=True,
)  # fmt: skip


def changed(value: Any, **more: Any) -> Any:
    return msgspec.structs.replace(value, **more)


def bad(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if f.verdict is not Verdict.OK]


def test_a_node_that_has_everything_is_well() -> None:
    for role in ("agent", "master"):
        findings = examine(changed(GOOD, role=role))
        assert bad(findings) == []
        assert worst(findings) is Verdict.OK
        assert all(f.found and not f.remedy for f in findings)
        assert len({f.name for f in findings}) == len(findings)


CASES: list[tuple[str, dict[str, Any], Verdict, str, str]] = [
    ("kernel", {"kernel": (5, 2)}, Verdict.FAIL, "no pidfds", "5.3 or newer"),
    ("kernel", {"pidfd": False}, Verdict.FAIL, "no pidfds", "5.3 or newer"),
    ("user", {"root": False}, Verdict.WARN, "not root", "as root"),
    ("open files", {"open_files": 20_000}, Verdict.WARN, "20000", "LimitNOFILE=65536"),
    ("open files", {"open_files": 1024}, Verdict.FAIL, "1024", "LimitNOFILE=65536"),
    ("clock", {"clock_synchronised": False}, Verdict.WARN, "nothing keeps it right", "chrony"),
    ("clock", {"clock_synchronised": None}, Verdict.WARN, "does not say", "timedatectl"),
    ("cgroups", {"cgroup": "none"}, Verdict.WARN, "no cgroups", "mount cgroup2"),
    ("cgroups", {"controllers": frozenset({"cpu"})}, Verdict.WARN, "controller for memory", "unified"),
    ("cgroups", {"cgroup_why": "read-only"}, Verdict.WARN, "read-only", "Delegate=yes"),
    ("bubblewrap", {"programs": frozenset({"iptables"})}, Verdict.WARN, "not installed", "install bubblewrap"),
    ("bubblewrap", {"bwrap_why": "setting up uid map"}, Verdict.WARN, "uid map", "user namespaces"),
    ("docker", {"docker": DockerFacts(why="refused")}, Verdict.WARN, "refused", "start the daemon"),
    ("docker", {"docker": None, "runtimes": ("docker",)}, Verdict.FAIL, "none answers", "start the daemon"),
    ("docker", {"docker": changed(DOCKER, version="19.03.1")}, Verdict.WARN, "19.03.1", "20.10"),
    ("live restore", {"docker": changed(DOCKER, live_restore=False)}, Verdict.FAIL, "off", "daemon.json"),
    ("live restore", {"docker": changed(DOCKER, swarm=True)}, Verdict.FAIL, "swarm", "swarm leave"),
    ("docker logs", {"docker": changed(DOCKER, log_limited=False)}, Verdict.WARN, "without a limit", "max-size"),
    ("docker logs", {"docker": changed(DOCKER, log_driver="syslog")}, Verdict.WARN, "cannot be read", "json-file"),
    ("iptables", {"programs": frozenset({"bwrap"})}, Verdict.FAIL, "not installed", "install iptables"),
    ("init", {"init": "runit"}, Verdict.WARN, "runit", "corral-agent"),
    ("corral-agent.service", {"units": {}}, Verdict.WARN, "no such unit", "corral systemd agent"),
    ("disk /x", {"disks": (changed(DISK, path="/x", kind="tmpfs"),)}, Verdict.FAIL, "reboot", "on a disk"),
    (
        "disk /x",
        {"disks": (changed(DISK, path="/x", writable=False),)},
        Verdict.FAIL,
        "cannot be written",
        "--work-dir",
    ),
    ("disk /x", {"disks": (changed(DISK, path="/x", free_bytes=1 << 20),)}, Verdict.FAIL, "0.0 GiB", "free some"),
    ("disk /x", {"disks": (changed(DISK, path="/x", free_share=0.05),)}, Verdict.WARN, "5%", "gc_delay_s"),
    ("disk /x", {"disks": (changed(DISK, path="/x", free_files_share=0.01),)}, Verdict.FAIL, "1% of", "free some"),
    ("port h:1", {"ports": (PortFacts(address="h:1", holder="in use"),)}, Verdict.FAIL, "in use", "--listen"),
    ("master u", {"masters": (MasterFacts(url="u", why="refused"),)}, Verdict.FAIL, "refused", "--master"),
    ("master u", {"masters": (MasterFacts(url="u"),)}, Verdict.WARN, "no master leads", "store"),
    (
        "master u",
        {"masters": (MasterFacts(url="u", ready=True, ahead_s=30.0),)},
        Verdict.WARN,
        "30secs ahead",
        "chrony",
    ),
    ("master u", {"masters": (MasterFacts(url="u", ready=True, ahead_s=-90.0),)}, Verdict.FAIL, "behind", "chrony"),
    ("certificate", {"certificate": None}, Verdict.FAIL, "has not joined", "corral join"),
    ("certificate", {"certificate": changed(CERTIFICATE, why="no PEM")}, Verdict.FAIL, "no PEM", "join again"),
    ("certificate", {"certificate": changed(CERTIFICATE, mode=0o644)}, Verdict.FAIL, "mode 644", "chmod 600"),
    ("certificate", {"certificate": changed(CERTIFICATE, not_after=NOW)}, Verdict.FAIL, "expired", "join again"),
    ("certificate", {"certificate": changed(CERTIFICATE, not_before=NOW + 1)}, Verdict.FAIL, "only from", "clock"),
    ("certificate", {"certificate": changed(CERTIFICATE, not_after=NOW + DAY)}, Verdict.WARN, "should have", "log"),
]


@pytest.mark.parametrize(("name", "change", "verdict", "found", "remedy"), CASES)
def test_each_trouble_is_found_alone_with_its_remedy(
    name: str, change: dict[str, Any], verdict: Verdict, found: str, remedy: str
) -> None:
    (finding,) = bad(examine(changed(GOOD, **change)))
    assert (finding.name, finding.verdict) == (name, verdict)
    assert found in finding.found
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("unit", "change", "verdict", "found"),
    [
        ("corral-agent.service", {"kill_mode": "control-group"}, Verdict.FAIL, "kills the plain processes"),
        ("corral-agent.service", {"delegate": False}, Verdict.WARN, "Delegate is off"),
        ("corral-agent.service", {"restart": "no"}, Verdict.WARN, "stays away"),
        ("docker.service", {"kill_mode": "control-group"}, Verdict.FAIL, "kills the containers"),
    ],
)
def test_units_that_kill_too_much_or_too_little_are_found(
    unit: str, change: dict[str, Any], verdict: Verdict, found: str
) -> None:
    (finding,) = bad(examine(changed(GOOD, units={**GOOD.units, unit: changed(PROCESS, **change)})))
    assert (finding.name, finding.verdict) == (unit, verdict)
    assert found in finding.found


def test_what_only_agents_need_is_not_asked_of_a_master() -> None:
    poor = changed(GOOD, role="master", kernel=(4, 4), docker=None, cgroup="none", programs=frozenset(), root=False)
    assert bad(examine(poor)) == []


def test_on_loopback_no_certificate_is_needed() -> None:
    assert bad(examine(changed(GOOD, certificate=None, exposed=False))) == []


def test_the_gravest_finding_counts() -> None:
    ok, warn, fail = (Finding("x", verdict, "y") for verdict in Verdict)
    assert worst([]) is Verdict.OK
    assert worst([ok, warn]) is Verdict.WARN
    assert worst([warn, fail, ok]) is Verdict.FAIL


def test_an_engine_tells_what_matters_of_it() -> None:
    found = read_docker(
        "u",
        {
            "ServerVersion": "20.10.24", "LiveRestoreEnabled": True, "LoggingDriver": "json-file", "Driver": "overlay2",
            "CgroupDriver": "systemd", "Swarm": {"LocalNodeState": "active"}, "ContainerdCommit": {"ID": "1.6.20"},
        },
    )  # fmt: skip
    assert (found.version, found.live_restore, found.swarm, found.containerd) == (
        "20.10.24",
        True,
        True,
        "1.6.20",
    )
    assert read_docker("u", {}).swarm is False


def test_the_unit_of_an_agent_ends_nothing_but_the_agent() -> None:
    lines = write_unit("agent", ("--work-dir", "/srv/a b", "--set", "x.y=50%$"), "/opt/corral/bin/corral").splitlines()
    assert {"KillMode=process", "Delegate=yes", "Restart=always"} <= set(lines)
    assert 'ExecStart=/opt/corral/bin/corral agent --work-dir "/srv/a b" --set "x.y=50%%$$"' in lines
    assert not any(line.startswith("StateDirectory") for line in lines)


def test_the_unit_of_a_master_comes_back_by_itself() -> None:
    lines = write_unit("master", ("--store", "etcd://10.0.0.5:2379"), "/opt/corral/bin/corral").splitlines()
    assert {"Restart=always", "StateDirectory=corral/master", "StartLimitIntervalSec=0"} <= set(lines)
    assert "KillMode=process" not in lines
    with pytest.raises(Invalid, match="line break"):
        write_unit("master", ("a\nExecStart=/bin/evil",), "corral")
