"""Writes resources and attributes in the flat form of older endpoints. Source: Mesos v1, legacy HTTP endpoints."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from corral.mesos import wire
from corral.mesos.resources import write_resource
from corral.model.attributes import Attribute, AttributeKind, format_value
from corral.model.resources import Resource, ResourceKind, Resources, coalesce

Json = dict[str, Any]

_ALWAYS = ("cpus", "disk", "gpus", "mem")


def write_flat(resources: Resources) -> Json:
    """All of a bundle summed by name: `{"cpus": 4.0, "mem": 1024.0, "gpus": 0, "ports": "[31000-32000]"}`."""
    milli: Counter[str] = Counter()
    ranges: dict[str, list[tuple[int, int]]] = {}
    sets: dict[str, set[str]] = {}
    for resource in resources:
        name = f"{resource.name}_revocable" if resource.identity.revocable else resource.name
        match resource.kind:
            case ResourceKind.SCALAR:
                milli[name] += resource.milli
            case ResourceKind.RANGES:
                ranges.setdefault(name, []).extend(resource.ranges)
            case ResourceKind.SET:
                sets.setdefault(name, set()).update(resource.items)
    flat: Json = dict.fromkeys(_ALWAYS, 0)
    flat |= {name: amount / 1000 for name, amount in sorted(milli.items())}
    flat |= {name: _range_text(spans) for name, spans in sorted(ranges.items())}
    flat |= {name: "{" + ", ".join(sorted(values)) + "}" for name, values in sorted(sets.items())}
    return flat


def _range_text(spans: Iterable[tuple[int, int]]) -> str:
    return "[" + ", ".join(f"{low}-{high}" for low, high in coalesce(spans)) + "]"


def write_full(resources: Resources) -> list[wire.Resource]:
    """A bundle as Resource objects that carry both forms of reservation where the older one can say it."""
    return [write_resource(r, refinement=True, both=True) for r in resources]


def by_reservation(resources: Resources) -> dict[str, list[Resource]]:
    """The reserved part by the role it is reserved for, which is the last of the stack."""
    found: dict[str, list[Resource]] = {}
    for resource in resources:
        if resource.identity.reservations:
            found.setdefault(resource.identity.reservations[-1].role, []).append(resource)
    return dict(sorted(found.items()))


def write_attributes(attributes: Sequence[Attribute]) -> Json:
    return {a.name: a.milli / 1000 if a.kind is AttributeKind.SCALAR else format_value(a) for a in attributes}
