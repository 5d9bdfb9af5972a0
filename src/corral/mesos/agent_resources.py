"""Reads what an operator says an agent has, in either form that Mesos takes: the text grammar or a JSON array.

Source: Mesos agent flag `--resources`.
"""

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.lenient import LenientDecoder
from corral.mesos.resources import read_resources
from corral.model.flags import parse_resources
from corral.model.operations import is_volume
from corral.model.resources import Resource, Resources, describe


class _Wrapped(wire.Wire):
    resources: tuple[wire.Resource, ...] = ()


_decoder = LenientDecoder(_Wrapped, "agent resources")


def read_agent_resources(text: str) -> Resources:
    """Shapes: a text that starts with `[` is a JSON array of Resource objects; only static reservations may be there.

    Errors: `Invalid` names the resource and what an agent cannot have.
    """
    if not text.strip().startswith("["):
        return parse_resources(text)
    found = read_resources(_decoder.decode(b'{"resources":' + text.encode() + b"}").resources, "--resources")
    for resource in found:
        _check(resource)
    return found


def _check(resource: Resource) -> None:
    identity, what = resource.identity, f"--resources: {describe((resource,))}"
    if resource.milli < 0:
        raise Invalid(f"{what} is below 0")
    if any(not each.static for each in identity.reservations):
        raise Invalid(f"{what} has a dynamic reservation; give it type STATIC, or reserve it by RESERVE_RESOURCES")
    if is_volume(resource) or identity.shared:
        raise Invalid(f"{what} is a persistent volume; give plain disk, and create the volume by CREATE_VOLUMES")
    if identity.revocable or identity.provider is not None or identity.allocation_role is not None:
        raise Invalid(f"{what} must not be revocable, of a resource provider, or allocated; leave that out")
    disk = identity.disk
    if disk is None:
        return
    if resource.name != "disk" or disk.source_type is None:
        raise Invalid(f"{what} has a disk member without source; give source.type PATH, or leave disk out")
    if disk.source_type != "PATH":
        raise Invalid(f"{what} has a source of type {disk.source_type}, which agents here cannot use; use PATH")
    if not disk.source_root:
        raise Invalid(f"{what} has a source of type PATH without path.root; say which directory it is")
