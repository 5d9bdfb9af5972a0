"""Judges a node by its facts: for each thing whether it is well, what was found and what to do. Pure.

Fail is what lets an outage stop or lose work, or the daemon not start; warn is what costs comfort, or will fail later.
Source: experiments on real nodes, told in docs/operate/troubleshoot.md.
"""

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from corral.doctor.facts import CertificateFacts, DiskFacts, DockerFacts, Facts, MasterFacts, PortFacts, UnitFacts
from corral.lib.units import format_duration, write_instant

GIB = 1 << 30
LEAST_KERNEL = (5, 3)
"""The first that tells of the end of a process that is nobody's child."""
EXIT_CODE_KERNEL = (6, 15)
"""The first that tells its exit code as well."""
GOOD_OPEN_FILES, LEAST_OPEN_FILES = 65_536, 4096
GOOD_SKEW_S, MOST_SKEW_S = 5.0, 60.0
LEAST_DOCKER = (20, 10)


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """Shapes: `remedy` is empty when all is well."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(facts: Facts) -> list[Finding]:
    """All findings, in an order that does not change."""
    found = [*_look_at_system(facts), *_look_at_clock(facts)]
    if facts.role == "agent":
        found += _look_at_runtimes(facts)
    found += _look_at_units(facts)
    found += [_disk(each) for each in facts.disks]
    found += [_port(each) for each in facts.ports]
    found += [_master(each) for each in facts.masters]
    found.append(_certificate(facts))
    return found


def worst(findings: list[Finding]) -> Verdict:
    """The gravest of all."""
    order = (Verdict.FAIL, Verdict.WARN)
    return next((v for v in order if any(f.verdict is v for f in findings)), Verdict.OK)


def _ok(name: str, found: str) -> Finding:
    return Finding(name, Verdict.OK, found)


def _warn(name: str, found: str, remedy: str) -> Finding:
    return Finding(name, Verdict.WARN, found, remedy)


def _fail(name: str, found: str, remedy: str) -> Finding:
    return Finding(name, Verdict.FAIL, found, remedy)


def _look_at_system(facts: Facts) -> Iterator[Finding]:
    kernel = ".".join(map(str, facts.kernel))
    if facts.role == "agent":
        if facts.kernel < LEAST_KERNEL or not facts.pidfd:
            yield _fail(
                "kernel", f"Linux {kernel} has no pidfds: ends of tasks are not seen while Docker is away",
                "run Linux 5.3 or newer",
            )  # fmt: skip
        elif facts.kernel < EXIT_CODE_KERNEL:
            yield _ok("kernel", f"Linux {kernel}: ends are seen at once, exit codes when Docker is back")
        else:
            yield _ok("kernel", f"Linux {kernel}: ends and exit codes are seen while Docker is away")
        if facts.root:
            yield _ok("user", "root")
        else:
            yield _warn(
                "user", "not root: tasks run as this user, limits depend on what was delegated to it",
                "run the agent as root where tasks of several users share the node",
            )  # fmt: skip
    if facts.open_files >= GOOD_OPEN_FILES:
        yield _ok("open files", f"up to {facts.open_files}")
        return
    say = _warn if facts.open_files >= LEAST_OPEN_FILES else _fail
    yield say(
        "open files", f"up to {facts.open_files}; each task, log and link takes some",
        f"set LimitNOFILE={GOOD_OPEN_FILES} in the unit, or ulimit -Hn",
    )  # fmt: skip


def _look_at_clock(facts: Facts) -> Iterator[Finding]:
    match facts.clock_synchronised:
        case True:
            yield _ok("clock", "synchronised")
        case False:
            yield _warn(
                "clock", "nothing keeps it right; certificates and schedules go by it",
                "run chrony or systemd-timesyncd",
            )  # fmt: skip
        case None:
            yield _warn("clock", "the kernel does not say whether it is synchronised", "look at `timedatectl`")


def _look_at_runtimes(facts: Facts) -> Iterator[Finding]:
    if "process" in facts.runtimes:
        yield _cgroup(facts)
        yield _bubblewrap(facts)
    if "docker" in facts.runtimes:
        yield from _docker(facts.docker, facts)


def _cgroup(facts: Facts) -> Finding:
    lacking = sorted({"cpu", "memory"} - facts.controllers)
    if facts.cgroup == "none" or lacking:
        what = "no cgroups are mounted" if facts.cgroup == "none" else f"no controller for {', '.join(lacking)}"
        return _warn(
            "cgroups", f"{what}: limits of plain processes are not kept",
            "mount cgroup2, or boot with systemd.unified_cgroup_hierarchy=1",
        )  # fmt: skip
    if facts.cgroup_why is not None:
        return _warn(
            "cgroups", f"{facts.cgroup}, but none can be made: {facts.cgroup_why}",
            "run the agent as root, with Delegate=yes in its unit",
        )  # fmt: skip
    if facts.cgroup != "v2":
        return _ok("cgroups", f"{facts.cgroup}: limits are kept; v2 also tells which task presses on memory")
    return _ok("cgroups", "v2, and tasks can get their own")


def _bubblewrap(facts: Facts) -> Finding:
    if "bwrap" not in facts.programs:
        return _warn("bubblewrap", "not installed: plain processes cannot be isolated", "install bubblewrap")
    if facts.bwrap_why is not None:
        return _warn(
            "bubblewrap", f"installed, but does not work: {facts.bwrap_why}",
            "allow user namespaces (kernel.unprivileged_userns_clone=1), or run the agent as root",
        )  # fmt: skip
    return _ok("bubblewrap", "works")


def _docker(docker: DockerFacts | None, facts: Facts) -> Iterator[Finding]:
    if docker is None or docker.why:
        why = "none answers" if docker is None else docker.why
        say = _warn if "process" in facts.runtimes else _fail
        yield say("docker", why, "start the daemon, name it with --docker-host, or leave docker out of --runtime")
        return
    if _release(docker.version) < LEAST_DOCKER:
        yield _warn("docker", f"version {docker.version}, of which corral knows little", "run Docker 20.10 or newer")
    else:
        yield _ok("docker", f"version {docker.version} at {docker.url}, containerd {docker.containerd or 'unknown'}")
    if docker.swarm:
        yield _fail(
            "live restore", "impossible while the Engine is in swarm mode: tasks end with the daemon",
            "leave the swarm with `docker swarm leave`",
        )  # fmt: skip
    elif docker.live_restore:
        yield _ok("live restore", "on: tasks run on while the daemon is away")
    else:
        yield _fail(
            "live restore", "off: every task ends when the daemon stops or is upgraded",
            'put {"live-restore": true} into /etc/docker/daemon.json and reload the daemon (systemctl reload docker)',
        )  # fmt: skip
    if docker.log_driver in ("json-file", "local", "journald"):
        if docker.log_driver == "json-file" and not docker.log_limited:
            yield _warn(
                "docker logs", "json-file without a limit: one talkative task fills the disk",
                'set {"log-opts": {"max-size": "10m", "max-file": "3"}} in /etc/docker/daemon.json',
            )  # fmt: skip
        else:
            yield _ok("docker logs", docker.log_driver)
    else:
        yield _warn(
            "docker logs", f"driver {docker.log_driver or 'none'} cannot be read back: `corral logs` is empty",
            "use json-file, local or journald",
        )  # fmt: skip
    if "iptables" in facts.programs:
        yield _ok("iptables", "installed")
    else:
        yield _fail("iptables", "not installed: bridged containers get no ports", "install iptables")


def _release(version: str) -> tuple[int, int]:
    parts = version.split(".")
    digits = ["".join(c for c in part if c.isdigit()) for part in (*parts, "0", "0")[:2]]
    return int(digits[0] or 0), int(digits[1] or 0)


def _look_at_units(facts: Facts) -> Iterator[Finding]:
    own = f"corral-{facts.role}.service"
    if facts.init != "systemd":
        remedy = f"let it start {own.removesuffix('.service')} at boot and again when it ends, and kill nothing else"
        yield _warn("init", f"process 1 is {facts.init}, of which this knows nothing", remedy)
        return
    unit = facts.units.get(own, UnitFacts())
    if not unit.loaded:
        path = f"/etc/systemd/system/{own}"
        yield _warn(own, "no such unit: after a reboot nobody starts it", f"corral systemd {facts.role} > {path}")
    else:
        yield _own_unit(own, unit, facts.role)
    if facts.role == "agent" and "docker" in facts.runtimes:
        for name in ("docker.service", "containerd.service"):
            other = facts.units.get(name, UnitFacts())
            if other.loaded:
                yield _other_unit(name, other)


def _own_unit(name: str, unit: UnitFacts, role: str) -> Finding:
    if role == "agent" and unit.kill_mode != "process":
        return _fail(
            name, f"KillMode={unit.kill_mode or 'unknown'}: stopping the agent kills the plain processes it supervises",
            "set KillMode=process and reload systemd",
        )  # fmt: skip
    if role == "agent" and not unit.delegate:
        return _warn(name, "Delegate is off: systemd may move cgroups of tasks", "set Delegate=yes and reload systemd")
    if unit.restart not in ("always", "on-failure"):
        remedy = "set Restart=always and reload systemd"
        return _warn(name, f"Restart={unit.restart or 'no'}: once it ends it stays away", remedy)
    return _ok(name, f"KillMode={unit.kill_mode}, Delegate={'yes' if unit.delegate else 'no'}, Restart={unit.restart}")


def _other_unit(name: str, unit: UnitFacts) -> Finding:
    if unit.kill_mode in ("process", "none"):
        return _ok(name, f"KillMode={unit.kill_mode}")
    return _fail(
        name, f"KillMode={unit.kill_mode}: stopping it kills the containers it holds",
        f"set KillMode=process in {name} and reload systemd",
    )  # fmt: skip


def _disk(disk: DiskFacts) -> Finding:
    name = f"disk {disk.path}"
    if not disk.writable:
        return _fail(name, "cannot be written", "give it to the daemon's user, or name another with --work-dir")
    if disk.kind in ("tmpfs", "ramfs"):
        remedy = "put the work directory on a disk"
        return _fail(name, f"lies on {disk.kind}: what was running is forgotten at a reboot", remedy)
    free = f"{disk.free_bytes / GIB:.1f} GiB free ({disk.free_share:.0%}), {disk.free_files_share:.0%} of its files"
    if disk.free_bytes < GIB or disk.free_share < 0.02 or disk.free_files_share < 0.02:
        return _fail(name, free, "free some: a daemon that cannot write its records ends")
    if disk.free_share < 0.10 or disk.free_files_share < 0.10:
        return _warn(name, free, "free some before tasks fill it; shorten agent.gc_delay_s")
    return _ok(name, free)


def _port(port: PortFacts) -> Finding:
    name = f"port {port.address}"
    if not port.holder:
        return _ok(name, "free")
    if port.holder == "corral":
        return _ok(name, "a corral answers there")
    return _fail(name, port.holder, "end what holds it, or choose another with --listen")


def _master(master: MasterFacts) -> Finding:
    name = f"master {master.url}"
    if master.why:
        return _fail(name, master.why, "start it, let this node through to it, or name another with --master")
    ahead_s = master.ahead_s or 0.0
    if abs(ahead_s) > GOOD_SKEW_S:
        found = f"its clock is {format_duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} this node's"
        say = _warn if abs(ahead_s) <= MOST_SKEW_S else _fail
        return say(name, found, "set both clocks right: run chrony or systemd-timesyncd on both")
    if not master.ready:
        return _warn(name, "answers, and no master leads now", "look at the masters' logs and their store")
    return _ok(name, "answers, and a master leads")


def _certificate(facts: Facts) -> Finding:
    found = facts.certificate
    if found is None:
        if facts.exposed and facts.role == "agent":
            return _fail(
                "certificate", "none: this node has not joined, and cannot listen beyond loopback",
                "`corral token create` on a master, then `corral join TOKEN@HOST` here",
            )  # fmt: skip
        return _ok("certificate", "none: on loopback none is needed")
    return _judge_certificate(found, facts.now, facts.role)


def _judge_certificate(found: CertificateFacts, now: float, role: str) -> Finding:
    renew = "restart the master, it makes another" if role == "master" else "let this node join again with a new token"
    if found.why:
        return _fail("certificate", found.why, renew)
    if found.mode & 0o077:
        return _fail("certificate", f"others can read its key (mode {found.mode:o})", "chmod 600 it, then renew it")
    until = write_instant(found.not_after)
    if now < found.not_before:
        return _fail("certificate", f"holds only from {write_instant(found.not_before)}", "set this node's clock right")
    if now >= found.not_after:
        return _fail("certificate", f"has expired at {until}", renew)
    if found.not_after - now < (found.not_after - found.not_before) / 6:
        return _warn(
            "certificate", f"{found.name} holds until {until} and should have been renewed",
            "look into the daemon's log for `certificate not renewed`; start it if it does not run",
        )  # fmt: skip
    return _ok("certificate", f"{found.name} holds until {until}")
