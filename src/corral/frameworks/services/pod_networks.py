"""The networks of a pod and the endpoints of its containers: read, checked, and shown as they were given.

All containers of an instance share one network: that of the node, or one of the Docker Engine there, on which they have
an address and all ports to themselves and of which an endpoint may show one on the node. Source: Marathon's contract,
section 6.

Deviates: a program of the node cannot join a network of the Engine's, so there every container has an image.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from corral.frameworks.services.app_spec import AppSpec, Endpoint, Network, NetworkSpec, PodContainer
from corral.frameworks.services.network_dialect import read_network
from corral.frameworks.services.reader import Json, Reader
from corral.frameworks.services.shown import write_network
from corral.frameworks.services.spec import Config
from corral.frameworks.services.validate import find_mode_faults

NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_MOST_PORT = 65535


def read_pod_networks(reader: Reader) -> tuple[NetworkSpec, ...]:
    """Shapes: the node's own when none is named."""
    return tuple(read_network(item) for item in reader.objects("networks")) or (NetworkSpec(),)


def read_endpoint(item: Reader, on_node: bool) -> Endpoint:
    """Shapes: with `on_node` it has a host port in any case, which is any free one unless it says which."""
    protocols = item.any("protocol")
    found = Endpoint(
        name=item.text("name", ""),
        container_port=item.whole("containerPort", 0) if item.any("containerPort") is not None else None,
        host_port=item.whole("hostPort", 0) if on_node or item.any("hostPort") is not None else None,
        protocols=(protocols,) if isinstance(protocols, str) else item.texts("protocol") or ("tcp",),
        labels=item.text_map("labels"),
        network_names=item.texts("networkNames"),
    )
    if NAME.fullmatch(found.name) is None:
        item.refuse("name", f"got {found.name!r}, must be lower-case letters, digits and dashes")
    for field, port in (("containerPort", found.container_port), ("hostPort", found.host_port)):
        if port is not None and not 0 <= port <= _MOST_PORT:
            item.refuse(field, f"got {port}, must be between 0 and {_MOST_PORT}")
    if any(p not in ("tcp", "udp") for p in found.protocols):
        item.refuse("protocol", f"got {', '.join(found.protocols)}, must be tcp or udp")
    item.done()
    return found


def check_endpoints(reader: Reader, networks: tuple[NetworkSpec, ...], containers: Iterable[PodContainer]) -> None:
    """Refuse what an endpoint cannot say on these networks."""
    on_node = networks[0].mode is Network.HOST
    names = {network.name for network in networks}
    for index, container in enumerate(containers):
        for number, endpoint in enumerate(container.endpoints):
            path = f"containers({index})/endpoints({number})"
            if on_node and endpoint.container_port:
                text = "on the node's network a container has no ports of its own; use hostPort"
                reader.refuse(f"{path}/containerPort", text)
            elif not on_node and not endpoint.container_port and endpoint.host_port is None:
                reader.refuse(f"{path}/containerPort", "containerPort must be given; 0 takes the number of a hostPort")
            for name in endpoint.network_names:
                if name not in names:
                    reader.refuse(f"{path}/networkNames", f"network {name!r} is not among the pod's networks")
            if len(networks) > 1 and endpoint.host_port is not None and len(endpoint.network_names) != 1:
                text = "with a hostPort and several networks, one of them must be named"
                reader.refuse(f"{path}/networkNames", text)


def name_networks(spec: AppSpec, config: Config) -> AppSpec:
    """The pod with the name of the default network where it names none."""
    if spec.network is not Network.CONTAINER or config.default_network is None:
        return spec
    return replace(spec, networks=tuple(replace(n, name=n.name or config.default_network) for n in spec.networks))


def find_network_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with the networks and with who would share them."""
    if not (yield from find_mode_faults(spec)):
        return
    mode = spec.network
    for index, network in enumerate(spec.networks):
        if mode is not Network.CONTAINER and network.name is not None:
            yield f"/networks({index})/name", f"a network of mode {mode} has no name"
        if mode is Network.CONTAINER and not network.name:
            yield f"/networks({index})/name", "a container network needs a name, as there is no default network"
    for name, times in Counter(network.name for network in spec.networks if network.name).items():
        if times > 1:
            yield "/networks", f"network {name} is named {times} times"
    if mode is not Network.HOST:
        yield from _find_sharing_faults(spec)


def _find_sharing_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    assert spec.pod is not None, "this is asked of pods"
    for index, container in enumerate(spec.pod.containers):
        if container.image is None:
            text = f"container {container.name} has no image and would be a program of the node, which cannot join a"
            yield f"/containers({index})/image", f"{text} network of mode {spec.network}; give it one, or use host"
    endpoints = [endpoint for container in spec.pod.containers for endpoint in container.endpoints]
    inside = Counter((e.container_port, p) for e in endpoints for p in e.protocols if e.container_port)
    outside = Counter((e.host_port, p) for e in endpoints for p in e.protocols if e.host_port)
    for field, counted in (("containerPort", inside), ("hostPort", outside)):
        for (port, protocol), times in counted.items():
            if times > 1:
                text = f"{field} {port}/{protocol} is given {times} times; the containers of a pod share their ports"
                yield "/containers", text


def write_networks(networks: tuple[NetworkSpec, ...]) -> list[dict[str, Json]]:
    return [write_network(network) for network in networks]


def write_endpoint(endpoint: Endpoint) -> dict[str, Json]:
    out: dict[str, Any] = {"name": endpoint.name}
    if endpoint.container_port is not None:
        out["containerPort"] = endpoint.container_port
    if endpoint.host_port is not None:
        out["hostPort"] = endpoint.host_port
    out |= {"protocol": list(endpoint.protocols), "labels": endpoint.labels}
    if endpoint.network_names:
        out["networkNames"] = list(endpoint.network_names)
    return out
