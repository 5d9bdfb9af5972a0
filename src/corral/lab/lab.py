"""Several Docker hosts on one machine: made, cut off from each other, killed like a power cut, started again, removed.

A host has its own network, mount, pid, uts and ipc namespaces, its own /run, boot id and cgroup, and its own containerd
and dockerd. SIGKILL to the first process of its pid namespace is the power cut: nothing in it can survive, whatever it
is. Everything of a lab is found by the lab's name, so a crash of any command leaves nothing that `down` does not find.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from corral.docker.daemon import PACKAGES, find_program, unmount_below
from corral.docker.image import import_busybox
from corral.lab import cgroups, spec, wires
from corral.lab.boot import boot, command, docker_url, lab_cgroup, spawn, start_docker
from corral.lab.boot import environment as boot_environment
from corral.lab.place import INIT, HostPlace, Place
from corral.lab.spec import DaemonSpec, LabSpec
from corral.lib.errors import Conflict, Failed, Forbidden, Invalid, NotFound

ROOT = Path("/var/lib/corral/labs")
IMAGES = ("busybox:latest",)
Change = Callable[[LabSpec, tuple[tuple[str, ...], tuple[str, ...]]], LabSpec]
TOOLS = ("dockerd", "containerd", "runc", "busybox", "iptables")


class Lab:
    """One lab by its name. Shapes: `root` is the directory of all labs.

    Errors: `Forbidden` without root, `Failed` when a program is missing or a daemon ends at once.
    """

    def __init__(self, name: str = "lab", root: Path = ROOT) -> None:
        self.name = spec.check_name(name)
        self.place = Place(root, self.name)

    # Up and down.

    def up(
        self,
        count: int,
        *,
        docker: bool = True,
        net: str | None = None,
        mem_mb: int | None = None,
        images: Sequence[str] = IMAGES,
        dockerd_arguments: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Have hosts h1 to hN run; what runs already stays as it is. Returns as `status`."""
        if not 1 <= count <= spec.MOST_HOSTS:
            raise Invalid(f"a lab has 1 to {spec.MOST_HOSTS} hosts, not {count}")
        need_root()
        if docker:
            _need_tools()
        with self.place.lock():
            lab = self._found(docker, net, mem_mb, tuple(dockerd_arguments))
            hosts = [HostPlace(self.place.directory, index) for index in range(1, count + 1)]
            for host in hosts:
                host.make()
            self._write_names(lab)
            self._bring_up(lab, hosts)
            if docker:
                for host in hosts:
                    import_busybox(docker_url(host), images)
        return self.status()

    def _found(self, docker: bool, net: str | None, mem_mb: int | None, arguments: tuple[str, ...]) -> LabSpec:
        """The lab as it is, or a new one."""
        there = self.place.read()
        if there is None:
            if len(str(self.place.directory)) > 70:
                raise Invalid(f"directory {self.place.directory} is too long for unix sockets; choose a shorter one")
            chosen = spec.check_net(net) if net is not None else self._free_net()
            there = LabSpec(name=self.name, net=chosen, docker=docker, mem_mb=mem_mb, dockerd_arguments=arguments)
            self.place.write(there)
            return there
        if net is not None and spec.check_net(net) != there.net:
            raise Conflict(f"lab {self.name} has network {there.net}; take it down before it can have {net}")
        if docker and not there.docker:
            raise Conflict(f"lab {self.name} was made without Docker; take it down, or give --no-docker")
        return there

    def _free_net(self) -> str:
        taken = wires.used_networks()
        for other in self.place.directory.parent.glob("*/lab.json"):
            found = Place(self.place.directory.parent, other.parent.name).read()
            if found is not None:
                taken.append(found.net.rpartition(".")[0] + ".")
        thirds = [third for third in range(256) if f"10.77.{third}." not in taken]
        if not thirds:
            raise Failed("all of 10.77.0.0/16 is in use on this machine; name a free network with --net")
        return str(IPv4Network(f"10.77.{random.choice(thirds)}.0/24"))

    def _write_names(self, lab: LabSpec) -> None:
        # In place: hosts that run see this very file.
        text = spec.hosts_text(lab, [host.index for host in self.place.hosts()], socket.gethostname())
        with open(self.place.directory / "hosts", "a+", encoding="ascii") as file:
            file.truncate(0)
            file.write(text)

    def down(self) -> None:
        """Remove everything that bears the lab's name. May be repeated, also after a crash."""
        need_root()
        with self.place.lock():
            for host in self.place.hosts():  # all at once: the end of a host takes a second
                with contextlib.suppress(NotFound, ProcessLookupError):
                    host.send(INIT, signal.SIGKILL)
            cgroups.end_all(lab_cgroup(self.name))
            wires.take_down(self.name)
            unmount_below(self.place.directory)
            shutil.rmtree(self.place.directory, ignore_errors=True)
            if self.place.directory.exists():
                raise Failed(f"{self.place.directory} cannot be removed; look what still uses it")
            self.place.remove_lock()

    # Hosts.

    def start(self, names: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Boot the hosts that do not run, and whatever of theirs does not; of all without names."""
        need_root()
        with self.place.lock():
            lab = self.place.read_or_fail()
            hosts = self._hosts(names) or self.place.hosts()
            self._bring_up(lab, hosts)
        return self.status()

    def kill(self, names: Iterable[str]) -> None:
        """Cut the power of hosts: nothing in them gets to do anything any more."""
        need_root()
        with self.place.lock():
            self.place.read_or_fail()
            hosts = self._hosts(names)
            for host in hosts:
                with contextlib.suppress(NotFound, ProcessLookupError):
                    host.send(INIT, signal.SIGKILL)
            for host in hosts:
                self._clear(host)

    def _clear(self, host: HostPlace) -> None:
        """What is left of a host that does not run; its disk stays."""
        host.end(INIT)
        cgroups.end_all(f"{lab_cgroup(self.name)}/{host.name}")
        wires.unplug(self.name, host.name)

    def _bring_up(self, lab: LabSpec, hosts: Sequence[HostPlace]) -> None:
        wires.raise_switch(lab)
        for host in hosts:
            if host.pid(INIT) is None:
                self._clear(host)
                wires.plug_in(lab, host.name, spec.host_ip(lab.net, host.index), spec.host_mac(host.index))
                boot(lab, host)
            else:
                wires.plug_in(lab, host.name, spec.host_ip(lab.net, host.index), spec.host_mac(host.index))
        wires.apply_cuts(lab, [host.name for host in self.place.hosts()])
        if lab.docker:
            start_docker(lab, hosts)
        for host in hosts:
            for name, daemon in host.read().daemons.items():
                if host.pid(name) is None:
                    spawn(lab, host, name, daemon)

    # Daemons and commands.

    def run(self, host_name: str, name: str, argv: Sequence[str], environment: Mapping[str, str], cwd: str) -> Path:
        """Start a daemon of one's own in a host, now and after each boot. Returns its log.

        Errors: `Conflict` when one of this name runs there.
        """
        need_root()
        if not argv:
            raise Invalid("no command is given; put it behind --")
        if name in (INIT, "containerd", "dockerd") or not name.replace("-", "").isalnum():
            raise Invalid(f"a daemon cannot be called {name!r}; choose another name of letters and digits")
        with self.place.lock():
            lab, host = self.place.read_or_fail(), self._running(host_name)
            if host.pid(name) is not None:
                raise Conflict(f"{name} runs on {host.name} already; corral lab kill {host.name} {name} ends it")
            daemon = DaemonSpec(
                argv=(find_program(argv[0]) or argv[0], *argv[1:]),
                environment={**environment, **boot_environment(lab, host)},
                directory=cwd,
                log=str(host.log(name)),
            )
            spawn(lab, host, name, daemon)
            host.remember(name, daemon)
        return host.log(name)

    def signal(self, host_name: str, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a daemon of a host; one that kills is waited for."""
        need_root()
        host = self._running(host_name)
        if number == signal.SIGKILL and host.pid(name) is not None:
            host.end(name, number)
        else:
            host.send(name, number)

    def start_again(self, host_name: str, name: str) -> None:
        """Start a daemon that does not run: one of one's own, containerd or dockerd. Errors: `NotFound` for others."""
        need_root()
        with self.place.lock():
            lab, host = self.place.read_or_fail(), self._running(host_name)
            own = host.read().daemons.get(name)
            if own is None and (name not in ("containerd", "dockerd") or not lab.docker):
                raise NotFound(f"{host.name} starts no {name} at its boot; corral lab status shows what it starts")
            if own is None:
                start_docker(lab, [host])
            elif host.pid(name) is None:
                spawn(lab, host, name, own)

    def forget(self, host_name: str, name: str) -> None:
        """End a daemon of one's own, and start it with no boot any more. Errors: `NotFound` when there is none."""
        need_root()
        with self.place.lock():
            self.place.read_or_fail()
            for host in self._hosts([host_name]):
                if not host.forget(name):
                    raise NotFound(f"{host.name} starts no {name} at its boot; corral lab status shows what it starts")
                host.end(name)

    def command(self, host_name: str, argv: Sequence[str]) -> list[str]:
        """What to run so that `argv` runs in a host: in the foreground, ending as it does."""
        need_root()
        if not argv:
            raise Invalid("no command is given; put it behind --")
        return command(self.place.read_or_fail(), self._running(host_name), argv)

    # Cuts.

    def cut(self, hosts: str, peers: str | None = None, *, silent: bool = False, one_way: bool = False) -> None:
        """Cut hosts off from everything, or from peers alone. Shapes: lists such as `h1,h2`; peers may be `here`."""
        self._change(lambda lab, names: spec.cut(lab, names[0], names[1], silent=silent, one_way=one_way), hosts, peers)

    def heal(self, hosts: str | None = None, peers: str | None = None) -> None:
        """Undo cuts: all of them, those of hosts, or those between hosts and peers."""
        self._change(lambda lab, names: spec.heal(lab, names[0], names[1]), hosts, peers)

    def _change(self, change: "Change", hosts: str | None, peers: str | None) -> None:
        need_root()
        with self.place.lock():
            lab = self.place.read_or_fail()
            known = [host.name for host in self.place.hosts()]
            names = (
                spec.read_hosts(hosts, known, here=peers is not None) if hosts is not None else (),
                spec.read_hosts(peers, known, here=True) if peers is not None else (),
            )
            lab = change(lab, names)
            self.place.write(lab)
            wires.apply_cuts(lab, known)

    # Looking.

    def status(self) -> list[dict[str, Any]]:
        """Each host with its address, its daemons and its cuts. Errors: `NotFound` when there is no such lab."""
        lab = self.place.read_or_fail()
        return [self._status(lab, host) for host in self.place.hosts()]

    def _status(self, lab: LabSpec, host: HostPlace) -> dict[str, Any]:
        own = {name: host.pid(name) for name in host.read().daemons}
        docker = {name: host.pid(name) for name in ("containerd", "dockerd")} if lab.docker else {}
        return {
            "name": host.name,
            "ip": spec.host_ip(lab.net, host.index),
            "runs": host.pid(INIT) is not None,
            "pid": host.pid(INIT),
            "docker": docker_url(host) if lab.docker else None,
            "daemons": {**docker, **own},
            "cut": spec.describe_cuts(lab, host.name),
            "disk": str(host.disk),
            "logs": str(host.directory / "log"),
        }

    def _hosts(self, names: Iterable[str]) -> list[HostPlace]:
        known = {host.name: host for host in self.place.hosts()}
        return [known[name] for given in names for name in spec.read_hosts(given, list(known))]

    def _running(self, name: str) -> HostPlace:
        self.place.read_or_fail()
        found = self._hosts([name])
        if len(found) != 1:
            raise Invalid(f"{name} names {len(found)} hosts; this is done on one at a time")
        if found[0].pid(INIT) is None:
            raise Failed(f"{name} does not run; start it with: corral lab start {name}")
        return found[0]


def list_labs(root: Path = ROOT) -> list[dict[str, Any]]:
    """All labs of this machine, with how many of their hosts run."""
    found = []
    for path in sorted(root.glob("*/lab.json")):
        place = Place(root, path.parent.name)
        lab, hosts = place.read(), place.hosts()
        if lab is not None:
            running = sum(host.pid(INIT) is not None for host in hosts)
            found.append({"name": lab.name, "net": lab.net, "hosts": len(hosts), "running": running})
    return found


def need_root() -> None:
    """Errors: `Forbidden`."""
    if os.geteuid() != 0:
        raise Forbidden("a lab makes namespaces, links and mounts, which needs root; run it with sudo")


def _need_tools() -> None:
    packages = {**PACKAGES, "iptables": "iptables"}
    missing = [name for name in TOOLS if find_program(name) is None]
    if missing:
        names = " ".join(sorted({packages[name] for name in missing}))
        raise Failed(f"{', '.join(missing)} not found; run: apt-get install {names}, or give --no-docker")
