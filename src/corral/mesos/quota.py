"""Reads and writes weights and quotas, for the operator API and the older endpoints alike.

Mesos takes quota for roles of the highest level alone, and not for `*`. Source: Mesos v1, quota and weights.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.lenient import LenientDecoder
from corral.mesos.resources import ANY_ROLE, write_resources
from corral.mesos.snapshot import ClusterSnapshot, RoleRow
from corral.model.ids import check_role
from corral.model.operator import RemoveQuota, SetQuota, UpdateQuota, UpdateWeights
from corral.model.resources import Resources
from corral.model.role import Quota, read_amounts


class WireWeightInfo(wire.Wire):
    weight: float
    role: str | None = None


class WireUpdateWeights(wire.Wire):
    weight_infos: tuple[WireWeightInfo, ...] = ()


class WireQuotaConfig(wire.Wire):
    role: str | None = None
    guarantees: dict[str, wire.Scalar] = {}
    limits: dict[str, wire.Scalar] = {}


class WireUpdateQuota(wire.Wire):
    force: bool = False
    quota_configs: tuple[WireQuotaConfig, ...] = ()


class WireQuotaRequest(wire.Wire):
    force: bool = False
    role: str | None = None
    guarantee: tuple[wire.Resource, ...] = ()


class WireSetQuota(wire.Wire):
    quota_request: WireQuotaRequest


class WireRemoveQuota(wire.Wire):
    role: str


class WireQuotaInfo(wire.Wire):
    role: str
    guarantee: tuple[wire.Resource, ...] = ()


class WireQuotaStatus(wire.Wire):
    infos: tuple[WireQuotaInfo, ...] = ()
    configs: tuple[WireQuotaConfig, ...] = ()


_weights = LenientDecoder(WireUpdateWeights, "weights")
_requests = LenientDecoder(WireQuotaRequest, "quota::QuotaRequest")
_arrays = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


# Reading.


def read_update_weights(found: WireUpdateWeights) -> UpdateWeights:
    """Shapes: white space around a role's name is cut off, as Mesos does. Errors: `Invalid` for a role without name."""
    return UpdateWeights(weights=tuple((_read_role(w.role, "weight_infos"), w.weight) for w in found.weight_infos))


def read_weights(body: bytes) -> UpdateWeights:
    """The bare array that `PUT /weights` takes. Errors: `Invalid` for anything else."""
    try:
        array = _arrays.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(
            f"Failed to parse update weights request JSON: {error}; send an array of role and weight"
        ) from None
    return read_update_weights(_weights.decode(b'{"weight_infos":[' + b",".join(array) + b"]}"))


def read_update_quota(found: WireUpdateQuota) -> UpdateQuota:
    """Errors: `Invalid` for a role that Mesos gives no quota or is named twice, and for an amount that cannot be."""
    quotas = tuple(_read_config(c) for c in found.quota_configs)
    named = [quota.role for quota in quotas]
    if twice := sorted({role for role in named if named.count(role) > 1}):
        raise Invalid(f"Invalid QuotaConfig: role {twice[0]} is named more than once; say once what it shall have")
    return UpdateQuota(quotas=quotas, force=found.force)


def _read_config(found: WireQuotaConfig) -> Quota:
    role = _read_quota_role(found.role)
    return Quota(
        role=role,
        guarantee=_read_scalars(found.guarantees, f"guarantees of role {role}", zeros=False),
        limit=_read_scalars(found.limits, f"limits of role {role}", zeros=True),
    )


def _read_scalars(found: dict[str, wire.Scalar], what: str, *, zeros: bool) -> Resources:
    return read_amounts(
        {name: scalar.value for name, scalar in found.items()}, f"Invalid QuotaConfig: {what}", zeros=zeros
    )


def read_set_quota(found: WireQuotaRequest) -> SetQuota:
    """What is guaranteed is the limit too, as in the older API.

    Errors: `Invalid` as `read_update_quota`, and for a guarantee that is empty or lists anything but plain scalars.
    """
    role = _read_quota_role(found.role)
    amounts: dict[str, float] = {}
    for resource in found.guarantee:
        what = f"Failed to validate set quota request: guarantee of role {role}"
        if resource.type != "SCALAR" or resource.scalar is None:
            raise Invalid(f"{what} lists {resource.name} of type {resource.type}; only scalars have a quota")
        if resource.reservations or resource.reservation is not None or resource.role not in (None, ANY_ROLE):
            raise Invalid(f"{what} lists {resource.name} with a reservation; leave it out")
        if resource.disk is not None or resource.revocable is not None:
            raise Invalid(f"{what} lists {resource.name} with disk or revocable; leave it out")
        if resource.name in amounts:
            raise Invalid(f"{what} lists {resource.name} twice; add the amounts up")
        amounts[resource.name] = resource.scalar.value
    if not amounts:
        raise Invalid(f"Failed to validate set quota request: the guarantee of role {role} is empty; list a scalar")
    limit = read_amounts(amounts, f"Failed to validate set quota request: guarantee of role {role}", zeros=True)
    return SetQuota(
        quota=Quota(role=role, guarantee=tuple(r for r in limit if r.milli), limit=limit), force=found.force
    )


def read_quota_request(body: bytes) -> SetQuota:
    """The body of `POST /quota`. Errors: as `read_set_quota`."""
    return read_set_quota(_requests.decode(body))


def read_remove_quota(role: str) -> RemoveQuota:
    return RemoveQuota(role=_read_quota_role(role))


def _read_quota_role(found: str | None) -> str:
    role = _read_role(found, "quota")
    if role == ANY_ROLE:
        raise Invalid("Invalid QuotaConfig: role '*' takes no quota here; name another role")
    if "/" in role:
        raise Invalid(
            f"Updating quota on nested role {role!r} is not supported by this API, which is Mesos'; "
            f"PUT /corral/v1/roles/{role} or corral role set does it"
        )
    return role


def _read_role(found: str | None, what: str) -> str:
    role = (found or "").strip()
    try:
        check_role(role)
    except Invalid as error:
        raise Invalid(f"Failed to validate {what}: {error.message}") from None
    return role


# Writing.


def write_weights(snapshot: ClusterSnapshot) -> list[dict[str, Any]]:
    """The roles of which something is set, each with its weight."""
    return [{"role": r.name, "weight": float(r.weight)} for r in snapshot.roles if r.settings is not None]


def write_quota_status(snapshot: ClusterSnapshot) -> WireQuotaStatus:
    """Shapes: `infos` is the older form and holds guarantees alone."""
    rows = [r for r in snapshot.roles if r.guarantee or r.limit]
    return WireQuotaStatus(infos=tuple(_write_infos(rows)), configs=tuple(_write_config(r) for r in rows))


def _write_infos(rows: Sequence[RoleRow]) -> Iterable[WireQuotaInfo]:
    for row in rows:
        if row.guarantee:
            yield WireQuotaInfo(role=row.name, guarantee=write_resources(row.guarantee, refinement=False))


def _write_config(row: RoleRow) -> WireQuotaConfig:
    return WireQuotaConfig(
        role=row.name, guarantees=_write_scalars(row.guarantee), limits=_write_scalars(row.limit)
    )  # fmt: skip


def _write_scalars(resources: Resources) -> dict[str, wire.Scalar]:
    return {r.name: wire.Scalar(value=r.milli / 1000) for r in resources}


def write_role_quota(row: RoleRow) -> dict[str, Any]:
    """The member `quota` of a role in `/roles`. Shapes: a limit that is not there is none."""
    return {
        "role": row.name,
        "guarantee": {r.name: r.milli / 1000 for r in row.guarantee},
        "limit": {r.name: r.milli / 1000 for r in row.limit},
        "consumed": {r.name: r.milli / 1000 for r in row.consumed},
    }
