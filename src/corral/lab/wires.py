"""The network of a lab: a switch in a namespace of its own, a cable from it to each host and one to the machine.

The switch is away from the machine's firewall, which would see a bridge beside it. Source: rtnetlink(7), by pyroute2.
"""

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute, NetNS, netns
from pyroute2.netlink.exceptions import NetlinkError

from corral.docker.daemon import find_program
from corral.lab.spec import HERE, LabSpec, filter_text, here_ip, port_name
from corral.lib.errors import Failed

BRIDGE = "br0"
NAMESPACES = Path("/run/netns")


def switch_name(lab: str) -> str:
    return f"corral-{lab}-switch"


def namespace_name(lab: str, host: str) -> str:
    return f"corral-{lab}-{host}"


def here_link(lab: str) -> str:
    """The machine's own end."""
    return f"cl-{lab}"


def raise_switch(lab: LabSpec) -> None:
    """The switch and the machine's cable to it; what is there stays."""
    name, own = switch_name(lab.name), here_link(lab.name)
    make_namespace(name)
    with _inside(name) as switch, IPRoute() as machine:
        if not _index(switch, BRIDGE):
            switch.link("add", ifname=BRIDGE, kind="bridge", br_forward_delay=0)
            switch.link("set", index=_index(switch, BRIDGE), state="up")
        if _index(machine, own) and not _index(switch, port_name(HERE)):
            machine.link("del", index=_index(machine, own))
        if not _index(machine, own):
            peer = {"ifname": port_name(HERE), "net_ns_fd": name}
            machine.link("add", ifname=own, kind="veth", peer=peer)
            prefix = int(lab.net.partition("/")[2])
            machine.addr("add", index=_index(machine, own), address=here_ip(lab.net), prefixlen=prefix)
            machine.link("set", index=_index(machine, own), state="up")
        switch.link("set", index=_index(switch, port_name(HERE)), master=_index(switch, BRIDGE), state="up")


def plug_in(lab: LabSpec, host: str, address: str, mac: str) -> None:
    """The cable of a host, and its namespace."""
    name = namespace_name(lab.name, host)
    make_namespace(name)
    with _inside(switch_name(lab.name)) as switch, _inside(name) as inner:
        port = port_name(host)
        if _index(switch, port) and not _index(inner, "eth0"):
            switch.link("del", index=_index(switch, port))
        if not _index(switch, port):
            switch.link("add", ifname=port, kind="veth", peer={"ifname": "eth0", "net_ns_fd": name, "address": mac})
            eth0 = _index(inner, "eth0")
            inner.addr("add", index=eth0, address=address, prefixlen=int(lab.net.partition("/")[2]))
            inner.link("set", index=eth0, state="up")
            switch.link("set", index=_index(switch, port), master=_index(switch, BRIDGE))
        switch.link("set", index=_index(switch, port), state="down" if host in lab.unplugged else "up")


def apply_cuts(lab: LabSpec, hosts: list[str]) -> None:
    """Make the plugs and the filter what the lab says."""
    with _inside(switch_name(lab.name)) as switch:
        for host in hosts:
            if index := _index(switch, port_name(host)):
                switch.link("set", index=index, state="down" if host in lab.unplugged else "up")
    _apply_filter(lab)


def _apply_filter(lab: LabSpec) -> None:
    program = find_program("ebtables-restore")
    if program is None:
        if lab.blocked:
            raise Failed("ebtables-restore not found, which silent cuts need; run: apt-get install iptables")
        return
    done = subprocess.run(
        ["nsenter", f"--net={NAMESPACES / switch_name(lab.name)}", program],
        input=filter_text(lab), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"the switch's filter cannot be set: {done.stderr.strip()}")


def unplug(lab: str, host: str) -> None:
    """Take a host's cable and namespace away."""
    with contextlib.suppress(OSError, NetlinkError), _inside(switch_name(lab)) as switch:
        if index := _index(switch, port_name(host)):
            switch.link("del", index=index)
    remove_namespace(namespace_name(lab, host))


def take_down(lab: str) -> None:
    """Take away everything of this lab's name, whatever is known of it."""
    with IPRoute() as machine:
        if index := _index(machine, here_link(lab)):
            machine.link("del", index=index)
    for path in NAMESPACES.glob(f"corral-{lab}-*"):
        remove_namespace(path.name)


def make_namespace(name: str) -> None:
    if _is_alive(name):
        return
    remove_namespace(name)
    netns.create(name)
    with _inside(name) as inner:
        inner.link("set", index=_index(inner, "lo"), state="up")


def _is_alive(name: str) -> bool:
    """Whether the name is that of a namespace and not the file that a crash, or a boot, has left."""
    if not (NAMESPACES / name).exists():
        return False
    try:
        with _inside(name):
            return True
    except OSError:
        return False


def remove_namespace(name: str) -> None:
    path = NAMESPACES / name
    if not path.exists():
        return
    try:
        netns.remove(name)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise Failed(f"network namespace {name} cannot be removed: {error.strerror}") from None
        path.unlink(missing_ok=True)


def used_networks() -> list[str]:
    """The first three numbers, with dots, of every address and route of this machine."""
    found = []
    with IPRoute() as machine:
        for message in (*machine.get_addr(), *machine.get_routes()):
            text = message.get("IFA_ADDRESS") or message.get("RTA_DST")
            if text and "." in str(text):
                found.append(str(text).rpartition(".")[0] + ".")
    return found


@contextlib.contextmanager
def _inside(name: str) -> "Iterator[NetNS]":
    handle = NetNS(str(NAMESPACES / name))
    try:
        yield handle
    finally:
        handle.close()


def _index(handle: "IPRoute | NetNS", name: str) -> int:
    """0 when there is no such link."""
    found = handle.link_lookup(ifname=name)
    return int(found[0]) if found else 0
