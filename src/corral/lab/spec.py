"""What a lab is: its hosts, its network, and which of them cannot reach each other.

A cut is either a pulled plug, which the host notices, or frames that vanish between two ports, which it does not. Cuts
are remembered by the lab and not by the hosts, so a host that is killed and started again is still cut off.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from typing import TypeVar

import msgspec

from corral.lib.errors import Invalid, NotFound

T = TypeVar("T")

HERE = "here"
"""What the machine itself is called where a host is to be named."""
EVERY = "*"
MOST_HOSTS = 100
FIRST = 10
"""Host i has address FIRST + i; the machine has 1."""
NAME = re.compile(r"[a-z][a-z0-9]{0,9}")


class LabSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `net` such as `10.77.0.0/24`; `unplugged` are hosts, `blocked` are pairs of from and to, `EVERY` for all.

    Units: `mem_mb` bounds all that runs in one host.
    """

    name: str
    net: str
    docker: bool = True
    mem_mb: int | None = None
    dockerd_arguments: tuple[str, ...] = ()
    unplugged: tuple[str, ...] = ()
    blocked: tuple[tuple[str, str], ...] = ()


class DaemonSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a host starts when it boots. Shapes: `directory` and `log` are absolute."""

    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    directory: str = "/"
    log: str


class HostSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `daemons` by name, in the order of their start."""

    index: int
    daemons: dict[str, DaemonSpec] = {}


def check_name(name: str) -> str:
    """Errors: `Invalid`; the name becomes part of interface names, which are short."""
    if not NAME.fullmatch(name):
        raise Invalid(f"lab {name!r} cannot be called so; a name has 1 to 10 letters and digits, a letter first")
    return name


def check_net(text: str) -> str:
    try:
        net = IPv4Network(text)
    except ValueError as error:
        raise Invalid(f"--net {text} is no network: {error}; give one such as 10.77.0.0/24") from None
    if net.prefixlen > 24:
        raise Invalid(f"--net {text} is too small; a lab needs a /24")
    return str(net)


def host_name(index: int) -> str:
    return f"h{index}"


def host_index(name: str) -> int | None:
    found = re.fullmatch(r"h([1-9][0-9]{0,2})", name)
    return int(found[1]) if found else None


def host_ip(net: str, index: int) -> str:
    return str(IPv4Network(net)[FIRST + index])


def here_ip(net: str) -> str:
    return str(IPv4Network(net)[1])


def host_mac(index: int) -> str:
    """The same after each boot, so that neighbours need not learn it anew."""
    return f"02:c0:00:00:00:{FIRST + index:02x}"


def port_name(host: str) -> str:
    """A host's port on the switch."""
    return f"p-{host}"


def read_hosts(text: str, known: Sequence[str], *, here: bool = False) -> tuple[str, ...]:
    """Hosts of a list such as `h1,h3`.

    Errors: `NotFound` names the one that is not there and those that are.
    """
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise Invalid("no host is named; give one such as h1, or several such as h1,h2")
    for name in found:
        if name not in known and not (here and name == HERE):
            raise NotFound(f"there is no host {name!r} in this lab; it has {', '.join(known) or 'none'}")
    return found


def cut(lab: LabSpec, hosts: Iterable[str], peers: Iterable[str], *, silent: bool, one_way: bool) -> LabSpec:
    """Cut hosts off: from everything when there are no `peers`, else from these alone.

    Shapes: `silent` keeps the carrier, which a cut between two hosts always does; `one_way` drops only what the hosts
    send to the peers.
    Errors: `Invalid` for a host that is to be cut from itself.
    """
    hosts, peers = tuple(hosts), tuple(peers)
    if not peers and one_way:
        raise Invalid("a cut of one direction needs to know whom it is from; name the peers")
    if both := sorted(set(hosts) & set(peers)):
        raise Invalid(f"{both[0]} cannot be cut from itself; name different hosts")
    if not peers and not silent:
        return msgspec.structs.replace(lab, unplugged=_merge(lab.unplugged, hosts))
    pairs: list[tuple[str, str]] = []
    for host in hosts:
        for peer in peers or (EVERY,):
            pairs += [(host, peer)] if one_way else [(host, peer), (peer, host)]
    return msgspec.structs.replace(lab, blocked=_merge(lab.blocked, pairs))


def heal(lab: LabSpec, hosts: Iterable[str], peers: Iterable[str]) -> LabSpec:
    """Undo the cuts of these hosts, whoever's end they were made from; only those from the `peers` when there are any.

    Shapes: without hosts all cuts are undone.
    """
    hosts, peers = set(hosts), set(peers)
    if not hosts:
        return msgspec.structs.replace(lab, unplugged=(), blocked=())

    def undone(pair: tuple[str, str]) -> bool:
        if peers:
            return bool(hosts & set(pair)) and bool(peers & set(pair))
        return bool(hosts & set(pair))

    kept = tuple(pair for pair in lab.blocked if not undone(pair))
    plugged = lab.unplugged if peers else tuple(name for name in lab.unplugged if name not in hosts)
    return msgspec.structs.replace(lab, blocked=kept, unplugged=plugged)


def filter_text(lab: LabSpec) -> str:
    """The whole table of the switch's filter, for `ebtables-restore`."""
    lines = ["*filter", ":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT"]
    for sender, receiver in lab.blocked:
        line = "-A FORWARD"
        if sender != EVERY:
            line += f" -i {port_name(sender)}"
        if receiver != EVERY:
            line += f" -o {port_name(receiver)}"
        lines.append(f"{line} -j DROP")
    return "\n".join(lines) + "\n"


def describe_cuts(lab: LabSpec, host: str) -> list[str]:
    """In words, what a host is cut off from."""
    found = ["unplugged"] if host in lab.unplugged else []
    pairs = set(lab.blocked)
    for sender, receiver in lab.blocked:
        if sender == host:
            name = "all" if receiver == EVERY else receiver
            found.append(name if (receiver, sender) in pairs else f"to {name}")
        elif receiver == host and (receiver, sender) not in pairs:
            found.append(f"from {'all' if sender == EVERY else sender}")
    return found


def hosts_text(lab: LabSpec, indexes: Iterable[int], machine: str) -> str:
    """The `/etc/hosts` of all hosts."""
    lines = ["127.0.0.1 localhost", f"{here_ip(lab.net)} {HERE} {machine}".rstrip()]
    lines += [f"{host_ip(lab.net, index)} {host_name(index)}" for index in sorted(indexes)]
    return "\n".join(lines) + "\n"


def _merge(old: tuple[T, ...], new: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*old, *new)))
