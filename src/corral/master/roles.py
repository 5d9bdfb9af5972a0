"""Takes what operators say of roles: weights, quotas, priorities.

Rule: a command is checked whole before anything is changed, and every record it changes is written in the same turn.
Source: Mesos v1, UPDATE_WEIGHTS, UPDATE_QUOTA, SET_QUOTA and REMOVE_QUOTA.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from corral.allocator.strategies import STRATEGIES
from corral.lib.errors import Conflict, Invalid, NotFound
from corral.master import claims, offers, role_tree, timers
from corral.master.entries import OfferEntry
from corral.master.spec import role_key
from corral.master.state import MasterState
from corral.model.ids import OfferId, check_role
from corral.model.operator import RemoveQuota, RemoveRole, SetQuota, SetRole, UpdateQuota, UpdateWeights
from corral.model.resources import describe, format_milli
from corral.model.role import Quota, RoleSettings, check_settings, is_within, line_of
from corral.runtime.core import Effect, Note, Persist

_UNSET = RoleSettings()

_Changed = dict[str, RoleSettings | None]
"""What becomes of roles; None forgets one."""


def set_role(state: MasterState, command: SetRole) -> list[Effect]:
    """Change what the command says and keep the rest; a role that nobody knew is known from now on.

    Errors: `Invalid` for a name or number that cannot be, and for a limit below a guarantee; `Conflict` for what only
    `force` can do.
    """
    given = {
        name: value for name in RoleSettings.__struct_fields__ if (value := getattr(command, name)) is not msgspec.UNSET
    }
    settings = msgspec.structs.replace(state.roles.get(command.role, _UNSET), **given)
    return _change(state, {command.role: settings}, force=command.force)


def remove_role(state: MasterState, command: RemoveRole) -> list[Effect]:
    """Forget what was set of a role, and of it alone: what was set of the roles below it stays.

    Errors: `NotFound` when nothing was set.
    """
    if command.role not in state.roles:
        raise NotFound(f"nothing is set of role {command.role}; corral role ls lists the roles")
    return _change(state, {command.role: None}, force=False)


def update_weights(state: MasterState, command: UpdateWeights) -> list[Effect]:
    """Errors: `Invalid` for a name that cannot be, or a weight that is not above 0; then no weight is changed."""
    changed: _Changed = {}
    for role, weight in command.weights:
        changed[role] = msgspec.structs.replace(state.roles.get(role, _UNSET), weight=weight)
    return _change(state, changed, force=True)


def update_quota(state: MasterState, command: UpdateQuota) -> list[Effect]:
    """Replace guarantee and limit of these roles.

    Errors: as `set_role`; then no quota is changed.
    """
    return _change(state, dict(_with_quota(state, q) for q in command.quotas), force=command.force)


def set_quota(state: MasterState, command: SetQuota) -> list[Effect]:
    """Errors: as `set_role`, and `Invalid` when the role has a quota."""
    role = command.quota.role
    if has_quota(state.roles.get(role, _UNSET)):
        raise Invalid(f"role {role} has a quota already; change it by UPDATE_QUOTA, or remove it first")
    return _change(state, dict([_with_quota(state, command.quota)]), force=command.force)


def remove_quota(state: MasterState, command: RemoveQuota) -> list[Effect]:
    """Errors: `Invalid` when the role has none."""
    if not has_quota(state.roles.get(command.role, _UNSET)):
        raise Invalid(f"role {command.role} has no quota; GET_QUOTA lists those that have one")
    return _change(state, dict([_with_quota(state, Quota(role=command.role))]), force=False)


def has_quota(settings: RoleSettings) -> bool:
    return bool(settings.guarantee or settings.limit)


def _with_quota(state: MasterState, quota: Quota) -> tuple[str, RoleSettings | None]:
    """A role of which nothing but its quota was set is forgotten with it."""
    before = state.roles.get(quota.role, _UNSET)
    after = msgspec.structs.replace(before, guarantee=quota.guarantee, limit=quota.limit)
    return quota.role, (None if after == _UNSET else after)


def _change(state: MasterState, changed: _Changed, *, force: bool) -> list[Effect]:
    """Check everything, then change everything."""
    for role, settings in changed.items():
        check_role(role)
        _check_key(role)
        if settings is not None:
            check_settings(role, settings)
            if settings.strategy not in ("", *STRATEGIES):
                raise Invalid(
                    f"role {role} names the strategy {settings.strategy!r}; there are {', '.join(STRATEGIES)}"
                )
    after = {role: s for role, s in {**state.roles, **changed}.items() if s is not None}
    promised = role_tree.promised(after)
    _check_limits(after, promised)
    if not force:
        _check_capacity(state, promised[""])
        _check_use(state, changed)
    return _carry_out(state, changed)


def _check_key(role: str) -> None:
    """A role that is set becomes part of a record's key; Mesos bounds neither length nor characters of its name."""
    if len(role.encode(errors="replace")) > 255:
        raise Invalid(f"role {role[:40]!r}… is longer than 255 bytes; shorten it")
    if not role.isprintable():
        raise Invalid(f"role {role!r} must hold no control character")


def _check_limits(after: Mapping[str, RoleSettings], promised: Mapping[str, role_tree.Amounts]) -> None:
    """A guarantee that a limit does not let through could never be kept."""
    for role, settings in after.items():
        needed = promised.get(role)
        for r in settings.limit if needed else ():
            if needed is not None and needed[r.name] > r.milli:
                raise Invalid(
                    f"role {role} has {format_milli(needed[r.name])} {r.name} guaranteed to it and the roles below it, "
                    f"but a limit of {format_milli(r.milli)}; raise the limit or lower the guarantee"
                )


def _check_capacity(state: MasterState, needed: role_tree.Amounts) -> None:
    """Whether the cluster can hold all guarantees; what was too much before may be lowered step by step."""
    before = role_tree.promised(state.roles)[""]
    there = role_tree.capacity(state)
    for name, milli in sorted(needed.items()):
        if milli > there[name] and milli > before[name]:
            raise Conflict(
                f"all guarantees together need {format_milli(milli)} {name} and the cluster has "
                f"{format_milli(there[name])}; lower them, add agents, or force it"
            )


def _check_use(state: MasterState, changed: _Changed) -> None:
    """Whether tasks stay within limits that are new; offers need not, for they can be taken back."""
    new = [(role, s, state.roles.get(role, _UNSET)) for role, s in changed.items() if s is not None]
    if not any(s.limit != old.limit or s.max_tasks != old.max_tasks for _, s, old in new):
        return
    held, offered, kept = role_tree.held(state), role_tree.offered(state), role_tree.kept(state)
    tasks = role_tree.tasks(state)
    for role, settings, old in new:
        used = held.get(role, Counter()) - offered.get(role, Counter()) - kept.get(role, Counter())
        known = {r.name: r.milli for r in old.limit}
        for r in settings.limit:
            if used[r.name] > r.milli and known.get(r.name) != r.milli:
                raise Conflict(
                    f"tasks of role {role} and the roles below it use {format_milli(used[r.name])} {r.name}, more than "
                    f"the new limit of {format_milli(r.milli)}; end some of them first, or force it"
                )
        most = settings.max_tasks
        if most is not None and tasks[role] > most and most != old.max_tasks:
            raise Conflict(
                f"role {role} and the roles below it run {tasks[role]} tasks, more than the new limit of {most}; "
                f"end some of them first, or force it"
            )


def _carry_out(state: MasterState, changed: _Changed) -> list[Effect]:
    """What is as it was is neither written nor told."""
    changed = {role: settings for role, settings in changed.items() if settings != state.roles.get(role)}
    effects: list[Effect] = []
    for role, settings in changed.items():
        if settings is None:
            del state.roles[role]
        else:
            state.roles[role] = settings
        claims.tell_role(state, role)
        effects.append(Persist(role_key(role), settings))
        what = "role set" if settings is not None else "role forgotten"
        effects.append(Note(what, "an operator asked for it", "info", {"role": role, **_facts(settings)}))
    if not changed:
        return effects
    over = _offers_over_limits(state, changed)
    effects += offers.rescind(state, over, "its role was given a limit that leaves no room for it")
    return effects + timers.ask_allocation(state)


def _facts(settings: RoleSettings | None) -> dict[str, object]:
    """What differs from a role of which nothing is set."""
    found: dict[str, object] = {}
    for name in RoleSettings.__struct_fields__ if settings is not None else ():
        value = getattr(settings, name)
        if value != getattr(_UNSET, name):
            found[name] = describe(value) if name in ("guarantee", "limit") else value
    return found


def _offers_over_limits(state: MasterState, changed: Iterable[str]) -> list[OfferEntry]:
    """The offers to take back so that what is out keeps within the limits: coarse ones first, the newest first."""
    limits = {role: {r.name: r.milli for r in state.roles[role].limit} for role in changed if role in state.roles}
    if not any(limits.values()):
        return []
    held = role_tree.held(state)
    newest = sorted(state.offers.values(), key=lambda entry: (entry.want is None, entry.made_at), reverse=True)
    found: dict[OfferId, OfferEntry] = {}
    for role, limit in sorted(limits.items()):
        for entry in newest if role in held else ():
            over = {name for name, most in limit.items() if held[role][name] > most}
            if not over:
                break
            part = role_tree.unreserved(entry.resources)
            if entry.offer.id in found or not is_within(entry.offer.role, role) or not over & part.keys():
                continue
            found[entry.offer.id] = entry
            for above in line_of(entry.offer.role):
                held[above].subtract(part)
    return list(found.values())
