"""Starts what a host is made of: its first process, its daemons, its containerd and dockerd, and commands in it."""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from corral.docker.daemon import CONTAINERD_CONFIG, PACKAGES, PATH, dockerd_arguments, find_program
from corral.docker.image import engine_answers
from corral.lab import cgroups, inside, wires
from corral.lab.place import INIT, HostPlace
from corral.lab.spec import DaemonSpec, LabSpec, host_ip
from corral.lib.errors import Failed

DOCKER_S = 90.0
PROGRAM = (sys.executable, "-I", "-S", "-X", "utf8", inside.__file__)


def lab_cgroup(lab: str) -> str:
    return f"corral-lab-{lab}"


def host_cgroup(lab: str, host: HostPlace) -> str:
    return f"{lab_cgroup(lab)}/{host.name}"


def docker_url(host: HostPlace) -> str:
    return f"unix://{host.run}/docker.sock"


def boot(lab: LabSpec, host: HostPlace) -> None:
    """Namespaces, mounts and the first process of a host that does not run."""
    host.make()
    shutil.rmtree(host.run, ignore_errors=True)  # /run does not outlive a boot
    for name in ("docker/plugins", "lock", "netns"):
        (host.run / name).mkdir(parents=True)
    boot_id = host.directory / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    binds = [(str(host.run), "/run"), (str(boot_id), inside.BOOT_ID)]
    binds.append((str(host.directory.parent / "hosts"), "/etc/hosts"))
    if os.path.realpath("/var/run") != os.path.realpath("/run"):
        binds.append((str(host.run), "/var/run"))
    cgroups.make(host_cgroup(lab.name, host), lab.mem_mb)
    cgroups.make(f"{host_cgroup(lab.name, host)}/docker")
    asked = {
        "netns": str(wires.NAMESPACES / wires.namespace_name(lab.name, host.name)),
        "name": host.name,
        "keep": str(host.directory / "cgroups"),
        "binds": binds,
        "log": str(host.log(INIT)),
        "pid_file": str(host.pid_file(INIT)),
        "cgroups": _system(lab, host),
    }
    _run("boot", asked, f"{host.name} cannot be booted")


def spawn(lab: LabSpec, host: HostPlace, name: str, daemon: DaemonSpec) -> None:
    """Start a daemon in a host that runs."""
    asked = {
        "init": host.pid(INIT),
        "argv": list(daemon.argv),
        "environment": daemon.environment,
        "directory": daemon.directory,
        "log": daemon.log,
        "pid_file": str(host.pid_file(name)),
        "cgroups": _system(lab, host),
    }
    _run("spawn", asked, f"{name} cannot be started on {host.name}")


def command(lab: LabSpec, host: HostPlace, argv: Sequence[str]) -> list[str]:
    """What runs `argv` in a host, in the foreground, and ends as it does."""
    asked = {
        "init": host.pid(INIT),
        "argv": list(argv),
        "environment": environment(lab, host),
        "cgroups": _system(lab, host),
    }
    return [*PROGRAM, "exec", json.dumps(asked)]


def environment(lab: LabSpec, host: HostPlace) -> dict[str, str]:
    """By which a program in a host knows where it is."""
    return {
        "CORRAL_LAB": lab.name,
        "CORRAL_LAB_HOST": host.name,
        "CORRAL_LAB_IP": host_ip(lab.net, host.index),
        "CORRAL_LAB_DISK": str(host.disk),
    }


def start_docker(lab: LabSpec, hosts: Iterable[HostPlace]) -> None:
    """Start what of containerd and dockerd does not run, on all at once, and return when each answers."""
    hosts = tuple(hosts)
    deadline = time.monotonic() + DOCKER_S
    for host in hosts:
        if host.pid("containerd") is None:
            _start_containerd(lab, host)
    for host in hosts:
        _await(host, "containerd", (host.run / "containerd.sock").exists, deadline)
        if host.pid("dockerd") is None:
            _start_dockerd(lab, host)
    for host in hosts:
        url = docker_url(host)
        _await(host, "dockerd", lambda url=url: engine_answers(url), deadline)  # type: ignore[misc]


def _start_containerd(lab: LabSpec, host: HostPlace) -> None:
    (host.run / "containerd.sock").unlink(missing_ok=True)
    config = host.directory / "containerd.toml"
    config.write_text(CONTAINERD_CONFIG.format(root=host.directory))
    _spawn_program(lab, host, "containerd", ["--config", str(config), "--log-level", "warn"])


def _start_dockerd(lab: LabSpec, host: HostPlace) -> None:
    (host.run / "docker.pid").unlink(missing_ok=True)  # its pid may be another process by now
    (host.directory / "daemon.json").write_text("{}\n")
    arguments = dockerd_arguments(host.directory, f"/{host_cgroup(lab.name, host)}/docker")
    arguments += ["--bip", f"172.29.{host.index}.1/24", "--default-address-pool", "base=172.28.0.0/16,size=24"]
    arguments += ["--userland-proxy=false", "--insecure-registry", lab.net, "--label", f"corral.host={host.name}"]
    _spawn_program(lab, host, "dockerd", [*arguments, *lab.dockerd_arguments])


def _spawn_program(lab: LabSpec, host: HostPlace, name: str, arguments: Sequence[str]) -> None:
    program = find_program(name)
    if program is None:
        raise Failed(f"{name} not found; run: apt-get install {PACKAGES[name]}")
    surroundings = {"PATH": PATH, "HOME": "/root", "TMPDIR": "/tmp"}  # noqa: S108 - the daemon's own default
    spawn(lab, host, name, DaemonSpec(argv=(program, *arguments), environment=surroundings, log=str(host.log(name))))


def _system(lab: LabSpec, host: HostPlace) -> list[str]:
    """Where what is no container runs."""
    made: list[Path] = cgroups.make(f"{host_cgroup(lab.name, host)}/system")
    return [str(path) for path in made]


def _run(verb: str, asked: dict[str, Any], what: str) -> None:
    done = subprocess.run(
        [*PROGRAM, verb, json.dumps(asked)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise Failed(f"{what}: {done.stderr.strip() or f'it ended with {done.returncode}'}")


def _await(host: HostPlace, name: str, done: Callable[[], bool], deadline: float) -> None:
    while not done():
        if host.pid(name) is None:
            raise Failed(f"{name} of {host.name} ended at its start: {host.log_tail(name)}")
        if time.monotonic() > deadline:
            raise Failed(f"{name} of {host.name} does not answer in time: {host.log_tail(name)}")
        time.sleep(0.03)
