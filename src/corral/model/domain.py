"""Fault domains: the region and the zone where a master or an agent stands. Source: Mesos v1 DomainInfo."""

import msgspec

from corral.lib.errors import Invalid

REGION, ZONE = "@region", "@zone"
"""What constraints call the two."""


class Domain(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    region: str
    zone: str


def parse_domain(text: str) -> Domain | None:
    """A domain as the configuration writes it, `REGION/ZONE`; None for an empty text.

    Errors: `Invalid` shows the form.
    """
    if not text.strip():
        return None
    region, slash, zone = (part.strip() for part in text.partition("/"))
    if not (region and slash and zone) or "/" in zone:
        raise Invalid(f"domain {text!r} is not REGION/ZONE; write for example eu-west/rack-7")
    return Domain(region=region, zone=zone)
