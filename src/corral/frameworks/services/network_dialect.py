"""The networks and ports of an app's JSON inward, in the form of today and in older ones (`ports`, `docker.network`,
`ipAddress`).

Source: Marathon's contract, sections 1 to 4.
"""

from typing import Any

import msgspec

from corral.frameworks.services.app_spec import Network, NetworkSpec, PortDefinition, PortMapping
from corral.frameworks.services.reader import Reader

_OLD_NETWORKS = {"HOST": Network.HOST, "BRIDGE": Network.BRIDGE, "USER": Network.CONTAINER}


def read_networks(reader: Reader, given: dict[str, Any]) -> None:
    """`networks`, or what older forms said instead: `docker.network`, `ipAddress`."""
    old = _old_network(reader)
    address = reader.object("ipAddress")
    name = None
    if address is not None:
        name = address.text_or_none("networkName")
        address.has("groups")
        labels = address.text_map("labels")
        discovery = address.object("discovery")
        if discovery is not None and discovery.list("ports"):
            _move_discovery(discovery, given)
        address.done()
    if reader.has("networks"):
        if old is not None or address is not None:
            reader.refuse(
                "networks", "networks stands beside docker.network or ipAddress, its older forms; keep networks"
            )
        given["networks"] = tuple(read_network(n) for n in reader.objects("networks")) or (NetworkSpec(),)
    elif address is not None:
        given["networks"] = (NetworkSpec(mode=Network.CONTAINER, name=name, labels=labels),)
    elif old is not None:
        given["networks"] = (NetworkSpec(mode=old),)


def _old_network(reader: Reader) -> Network | None:
    container = reader.fields.get("container")
    docker = container.get("docker") if isinstance(container, dict) else None
    value = docker.get("network") if isinstance(docker, dict) else None
    if value is None:
        return None
    if not isinstance(value, str) or value not in _OLD_NETWORKS:
        reader.refuse("container/docker/network", f"got {value!r}, must be HOST, BRIDGE or USER")
        return None
    return _OLD_NETWORKS[value]


def _move_discovery(discovery: Reader, given: dict[str, Any]) -> None:
    """The ports of `ipAddress.discovery` become mappings of the container."""
    mappings = []
    for item in discovery.objects("ports"):
        mappings.append(
            PortMapping(
                container_port=item.whole("number", 0),
                protocol=item.text("protocol", "tcp"),
                name=item.text_or_none("name"),
                labels=item.text_map("labels"),
            )
        )
        item.done()
    discovery.done()
    container = given.get("container")
    if container is not None and container.port_mappings is None:
        given["container"] = msgspec.structs.replace(container, port_mappings=tuple(mappings))


def read_network(item: Reader) -> NetworkSpec:
    found = NetworkSpec(
        mode=Network(item.choice("mode", Network.CONTAINER, [str(m) for m in Network])),
        name=item.text_or_none("name"),
        labels=item.text_map("labels"),
    )
    item.done()
    return found


def read_ports(reader: Reader, given: dict[str, Any]) -> None:
    """`portDefinitions`, or the older `ports`; both only when they say the same.

    Beside a network of the container's own, older releases show the service ports once more in one or both of them.
    """
    networks = given.get("networks", ())
    if networks and networks[0].mode is not Network.HOST:
        reader.has("ports")
        if not reader.has("networks") or not reader.has("portDefinitions"):
            reader.has("portDefinitions")
            given["port_definitions"] = None
            return
    if reader.has("portDefinitions"):
        given["port_definitions"] = tuple(_read_definition(p) for p in reader.objects("portDefinitions"))
    if not reader.has("ports"):
        return
    numbers = []
    for index, value in enumerate(reader.list("ports")):
        if isinstance(value, bool) or not isinstance(value, int):
            reader.wrong(f"ports({index})", "a whole number", value)
        else:
            numbers.append(value)
    definitions = given.get("port_definitions")
    if definitions is None:
        given["port_definitions"] = tuple(PortDefinition(port=n) for n in numbers)
    elif numbers and [d.port for d in definitions] != numbers:
        reader.refuse("ports", "ports differ from portDefinitions; drop ports, the older form")


def _read_definition(item: Reader) -> PortDefinition:
    found = PortDefinition(
        port=item.whole("port", 0),
        protocol=item.text("protocol", "tcp"),
        name=item.text_or_none("name"),
        labels=item.text_map("labels"),
    )
    item.done()
    return found
