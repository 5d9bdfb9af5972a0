"""The faults that are done to a real cluster, one function each: hurt, watch, and say what came of it.

Each returns what happened in words with numbers; the harness adds seconds and what was lost. To add one: a function,
and a line in `FAULTS`.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.fault.real.apart import fence_by_supervisor, kill_framework, revoke_node
from tests.fault.real.cluster import TIMEOUT_S, wait_for
from tests.fault.real.scene import Outcome, Scene


class Fault(NamedTuple):
    """Shapes: `needs` is the least number of masters and of etcd members. `who` is the chapter that it stands in."""

    key: str
    who: str
    what: str
    run: Callable[[Scene], Outcome]
    masters: int = 1
    members: int = 0
    docker: bool = False


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def _count(tasks: Sequence[str]) -> str:
    return f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}"


def _other(scene: Scene) -> str:
    """A host that has no leading master."""
    leader = scene.cluster.leader()
    return next(name for name in reversed(scene.cluster.names) if name != leader)


# The master.


def kill_leader(scene: Scene) -> Outcome:
    leader = scene.cluster.leader()
    brief = [scene.tasks_of(f"brief-{kind}")[0] for kind in scene.kinds]
    scene.begin()
    with scene.cluster.down(leader, "master"):
        for task in brief:
            scene.diary.end(task, 7)
        time.sleep(1.0)
    took_s = scene.settle()
    return Outcome(
        f"{_led_by(scene, leader)} no write was accepted for {_seconds(scene.writer.outage_s(scene.hurt_at))}; "
        f"{_count(brief)} that exited meanwhile replaced",
        took_s,
        ended=brief,
    )


def stop_leader(scene: Scene) -> Outcome:
    leader = scene.cluster.leader()
    scene.begin()
    with scene.cluster.stopped(leader, "master"):
        if len(scene.cluster.masters) > 1:
            wait_for(lambda: scene.cluster.leader() != leader, "another leader")
        time.sleep(8.0)
    took_s = scene.settle()
    return Outcome(
        f"{_led_by(scene, leader)} no write was accepted for {_seconds(scene.writer.outage_s(scene.hurt_at))}", took_s
    )


def _led_by(scene: Scene, before: str) -> str:
    if len(scene.cluster.masters) == 1:
        return "it was started again;"
    return "another master led;" if scene.cluster.leader() != before else "it led again;"


# The agent.


def kill_agent(scene: Scene) -> Outcome:
    host = _other(scene)
    brief = [scene.tasks_of(f"brief-{kind}", host)[0] for kind in scene.kinds]
    scene.begin()
    with scene.cluster.down(host, "agent"):
        for task in brief:
            scene.diary.end(task, 7)
        time.sleep(2.0)
    for task in brief:
        wait_for(lambda task=task: scene.learned(task, 7), f"the exit of {task}")  # type: ignore[misc]
    took_s = scene.settle()
    return Outcome(f"its tasks ran on; {_count(brief)} that exited meanwhile told with the code", took_s, brief)


def stop_agent(scene: Scene) -> Outcome:
    host = _other(scene)
    scene.begin()
    with scene.cluster.stopped(host, "agent"):
        wait_for(lambda: scene.cluster.nodes()[host] == "unreachable", "an unreachable agent", TIMEOUT_S * 4)
        silent_s = time.monotonic() - scene.hurt_at
    took_s = scene.settle()
    return Outcome(
        f"it was called unreachable after {_seconds(silent_s)}; its tasks ran on and were known again", took_s
    )


# Docker.


def kill_dockerd(scene: Scene) -> Outcome:
    host = _other(scene)
    brief = scene.tasks_of("brief-docker", host)
    scene.begin()
    with scene.cluster.down(host, "dockerd"):
        for task in brief:
            scene.diary.end(task, 7)
        time.sleep(5.0)
    for task in brief:
        wait_for(lambda task=task: scene.learned(task, 7), f"the exit of {task}")  # type: ignore[misc]
    took_s = scene.settle()
    return Outcome(
        f"containers ran on for {_seconds(5.0)} without it; {_count(brief)} that exited meanwhile told with the code",
        took_s,
        brief,
    )


def stop_dockerd(scene: Scene) -> Outcome:
    host = _other(scene)
    scene.begin()
    with scene.cluster.stopped(host, "dockerd"):
        time.sleep(10.0)
    took_s = scene.settle()
    return Outcome("it hung for 10.0 s; containers ran on and nobody was replaced", took_s)


def upgrade_docker(scene: Scene) -> Outcome:
    host = _other(scene)
    brief = scene.tasks_of("brief-docker", host)
    lab = scene.cluster.lab
    scene.begin()
    scene.cluster.held.update({(host, "dockerd"), (host, "containerd")})
    try:
        for daemon in ("dockerd", "containerd"):
            lab.signal(host, daemon, signal.SIGTERM)
            wait_for(lambda daemon=daemon: not scene.cluster.runs(host, daemon), f"the end of {daemon}")  # type: ignore[misc]
        for task in brief:
            scene.diary.end(task, 7)
        time.sleep(3.0)
    finally:
        scene.cluster.held.clear()
    for task in brief:
        wait_for(lambda task=task: scene.learned(task, 7), f"the exit of {task}")  # type: ignore[misc]
    took_s = scene.settle()
    return Outcome(
        f"both were stopped in order and started again; containers ran on, {_count(brief)} that exited meanwhile told "
        "with the code",
        took_s,
        brief,
    )


def kill_containerd(scene: Scene) -> Outcome:
    host = _other(scene)
    scene.begin()
    scene.cluster.lab.signal(host, "containerd")
    time.sleep(4.0)
    took_s = scene.settle()
    return Outcome("it was started again; containers ran on", took_s)


# Links.


def pull_plug(scene: Scene) -> Outcome:
    host = _other(scene)
    brief = [scene.tasks_of(f"brief-{kind}", host)[0] for kind in scene.kinds]
    scene.begin()
    scene.cluster.lab.cut(host)
    for task in brief:
        scene.diary.end(task, 7)
    time.sleep(5.0)
    scene.cluster.lab.heal(host)
    for task in brief:
        wait_for(lambda task=task: scene.learned(task, 7), f"the exit of {task}")  # type: ignore[misc]
    took_s = scene.settle()
    return Outcome(
        f"back within its time; {_count(brief)} that exited while it was cut off told with the code",
        took_s,
        brief,
    )


def vanish(scene: Scene) -> Outcome:
    host = _other(scene)
    scene.begin()
    scene.cluster.lab.cut(host, silent=True)
    return _come_back(scene, host)


def vanish_one_way(scene: Scene) -> Outcome:
    """What an agent says reaches no master, and what masters say still reaches it."""
    host = _other(scene)
    scene.begin()
    for name in scene.cluster.masters:
        if name != host:
            scene.cluster.lab.cut(host, name, one_way=True)
    return _come_back(scene, host)


def _come_back(scene: Scene, host: str) -> Outcome:
    """A host that was cut off is given up, and healed a moment later."""
    wait_for(lambda: scene.cluster.nodes()[host] == "unreachable", "an unreachable agent", TIMEOUT_S * 4)
    silent_s = time.monotonic() - scene.hurt_at
    time.sleep(3.0)
    scene.cluster.lab.heal(host)
    took_s = scene.settle()
    return Outcome(
        f"it was called unreachable after {_seconds(silent_s)}; its tasks ran on and were known again", took_s
    )


def part_leader(scene: Scene) -> Outcome:
    """Clients reach all masters; the one that leads reaches neither the others nor a quorum of the store."""
    leader = scene.cluster.leader()
    others = [name for name in scene.cluster.names if name != leader]
    scene.begin()
    scene.cluster.lab.cut(leader, ",".join(others))
    wait_for(lambda: any(map(scene.cluster.leads, others)), "another leader")
    led_s = time.monotonic() - scene.hurt_at
    for _ in range(30):
        assert not scene.cluster.leads(leader), f"{leader} says that it leads, and so does another"
        time.sleep(0.1)
    scene.cluster.lab.heal(leader)
    took_s = scene.settle()
    return Outcome(
        f"another led after {_seconds(led_s)}, never two at a time; no write was accepted for "
        f"{_seconds(scene.writer.outage_s(scene.hurt_at))}",
        took_s,
    )


# Power.


def cut_power(scene: Scene) -> Outcome:
    host = _other(scene)
    here = [task for name in scene.apps() for task in scene.tasks_of(name, host)]
    scene.begin()
    scene.cluster.lab.kill([host])
    time.sleep(2.0)
    booted_at = time.monotonic()
    scene.cluster.lab.start([host])
    wait_for(lambda: all(scene.diary.starts()[task] > 1 for task in here), "tasks that are started again")
    again_s = time.monotonic() - booted_at
    took_s = scene.settle()
    return Outcome(
        f"{_seconds(again_s)} after it had power again its {len(here)} services were started again, as the same tasks",
        took_s,
        again=here,
    )


def cut_power_without_master(scene: Scene) -> Outcome:
    leader, host = scene.cluster.leader(), _other(scene)
    here = [task for name in scene.apps() for task in scene.tasks_of(name, host)]
    scene.begin()
    scene.cluster.held.update((name, "master") for name in scene.cluster.masters)
    try:
        for name in scene.cluster.masters:
            if name != host:
                scene.cluster.lab.signal(name, "master")
        scene.cluster.lab.kill([host])
        scene.cluster.lab.start([host])
        if host in scene.cluster.masters:
            scene.cluster.lab.signal(host, "master")
        wait_for(lambda: all(scene.diary.starts()[task] > 1 for task in here), "tasks that are started again")
        again_s = time.monotonic() - scene.hurt_at
    finally:
        scene.cluster.held.clear()
    took_s = scene.settle()
    assert leader in scene.cluster.names
    return Outcome(
        f"its {len(here)} services ran again {_seconds(again_s)} later, before any master was there", took_s, again=here
    )


# Disk and clock.


def fill_agents_disk(scene: Scene) -> Outcome:
    return _fill(scene, _other(scene), "agent", "the agent")


def fill_masters_disk(scene: Scene) -> Outcome:
    return _fill(scene, scene.cluster.leader(), "master", "the leading master")


def _fill(scene: Scene, host: str, daemon: str, who: str) -> Outcome:
    scene.begin()
    with scene.cluster.full_disk(host, daemon):
        time.sleep(5.0)
    took_s = scene.settle()
    return Outcome(
        f"{who} had no room for 5.0 s; no write was accepted for "
        f"{_seconds(scene.writer.outage_s(scene.hurt_at))} at most",
        took_s,
    )


def jump_forward(scene: Scene) -> Outcome:
    return _jump(scene, 3600.0, "an hour ahead")


def jump_back(scene: Scene) -> Outcome:
    return _jump(scene, -3600.0, "an hour back")


def _jump(scene: Scene, offset_s: float, where: str) -> Outcome:
    scene.begin()
    leader = scene.cluster.leader()
    for host in {leader, _other(scene)}:
        scene.cluster.set_clock(host, offset_s)
    _stays_whole(scene, 4.0)
    for host in scene.cluster.names:
        scene.cluster.set_clock(host, 0.0)
    _stays_whole(scene, 4.0)
    assert scene.cluster.leader() == leader, "another master leads"
    took_s = scene.settle()
    return Outcome(
        f"the clocks of the leading master and of an agent went {where} and right again; nobody was missed for it, "
        f"and no write waited longer than {_seconds(scene.writer.outage_s(scene.hurt_at))}",
        took_s,
    )


def _stays_whole(scene: Scene, seconds: float) -> None:
    """Watch that no agent is missed. Errors: `AssertionError` names those that are."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        missed = [name for name, state in scene.cluster.nodes().items() if state != "reachable"]
        assert missed == [], f"agents on {', '.join(missed)} are missed"
        time.sleep(0.3)


# The store.


def kill_member(scene: Scene) -> Outcome:
    leader = scene.cluster.leader()
    host = next(name for name in scene.cluster.members if name != leader)
    scene.begin()
    with scene.cluster.down(host, "etcd"):
        time.sleep(4.0)
    took_s = scene.settle()
    return Outcome(f"no write waited longer than {_seconds(scene.writer.outage_s(scene.hurt_at))}", took_s)


def lose_quorum(scene: Scene) -> Outcome:
    first, second = scene.cluster.members[1:3]
    scene.begin()
    with scene.cluster.down(first, "etcd"), scene.cluster.down(second, "etcd"):
        time.sleep(8.0)
    took_s = scene.settle(120.0)
    return Outcome(
        f"two of three members were away for 8.0 s; no write was accepted for "
        f"{_seconds(scene.writer.outage_s(scene.hurt_at))}",
        took_s,
    )


def stop_member(scene: Scene) -> Outcome:
    leader = scene.cluster.leader()
    host = next(name for name in scene.cluster.members if name != leader)
    scene.begin()
    with scene.cluster.stopped(host, "etcd"):
        time.sleep(6.0)
    took_s = scene.settle()
    return Outcome(f"no write waited longer than {_seconds(scene.writer.outage_s(scene.hurt_at))}", took_s)


def stop_store(scene: Scene) -> Outcome:
    """All members hang: they take connections and answer nothing."""
    scene.begin()
    with contextlib.ExitStack() as stack:
        for host in scene.cluster.members:
            stack.enter_context(scene.cluster.stopped(host, "etcd"))
        time.sleep(10.0)
    took_s = scene.settle(120.0)
    return Outcome(
        f"it answered nothing for 10.0 s; no write was accepted for "
        f"{_seconds(scene.writer.outage_s(scene.hurt_at))}, and all went on by itself",
        took_s,
    )


FAULTS = (
    Fault("master-killed", "master", "`kill -9` of the leading master", kill_leader),
    Fault("master-stopped", "master", "`SIGSTOP` of the leading master", stop_leader),
    Fault("agent-killed", "agent", "`kill -9` of an agent", kill_agent),
    Fault("agent-stopped", "agent", "`SIGSTOP` of an agent", stop_agent),
    Fault("agent-stopped-only", "agent", "`SIGSTOP` of an agent with only instances", fence_by_supervisor),
    Fault("node-revoked", "agent", "a node revoked while it works", revoke_node),
    Fault("framework-killed", "framework", "`kill -9` of a framework in a process of its own", kill_framework),
    Fault("dockerd-killed", "docker", "`kill -9` of a Docker daemon", kill_dockerd, docker=True),
    Fault("dockerd-stopped", "docker", "`SIGSTOP` of a Docker daemon", stop_dockerd, docker=True),
    Fault("docker-upgraded", "docker", "Docker daemon and containerd upgraded", upgrade_docker, docker=True),
    Fault("containerd-killed", "docker", "`kill -9` of a containerd", kill_containerd, docker=True),
    Fault("plug-pulled", "link", "the plug of a host pulled and put back", pull_plug),
    Fault("link-silent", "link", "all frames of a host vanish for a while", vanish),
    Fault("link-one-way", "link", "what an agent sends vanishes, what it is sent does not", vanish_one_way),
    Fault(
        "leader-parted",
        "link",
        "the leading host cut off from the others, not from clients",
        part_leader,
        masters=3,
        members=3,
    ),
    Fault("host-killed", "host", "the power of a host cut", cut_power),
    Fault("host-killed-alone", "host", "the power of a host cut while no master is there", cut_power_without_master),
    Fault("member-killed", "store", "`kill -9` of an etcd member", kill_member, members=3),
    Fault("quorum-lost", "store", "two of three etcd members lost", lose_quorum, members=3),
    Fault("member-stopped", "store", "`SIGSTOP` of an etcd member", stop_member, members=3),
    Fault("store-stopped", "store", "`SIGSTOP` of all etcd members", stop_store, members=3),
    Fault("agent-disk-full", "disk", "the disk of an agent full", fill_agents_disk),
    Fault("master-disk-full", "disk", "the disk of the leading master full", fill_masters_disk),
    Fault("clock-forward", "clock", "clocks an hour ahead", jump_forward),
    Fault("clock-back", "clock", "clocks an hour back", jump_back),
)
