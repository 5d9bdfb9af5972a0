"""Which role a definition gets, and the framework's joining and leaving of roles as its apps come and go.

Rules: who names no role has the group's where that is enforced, else the framework's; an app that exists keeps its
role until its definition names another one. Source: Marathon's contract, sections 2, 4 and 5.

Deviates: a whole definition that names no role leaves an app in the role it has, as a role is nothing to lose by the
way.
"""

from collections.abc import Mapping

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.record_spec import GroupRecord
from corral.frameworks.services.role_spec import RESIDENCY, ResidentRecord, group_role, own_role, top_group
from corral.frameworks.services.state import State, replace
from corral.lib.errors import Unprocessable
from corral.model import calls
from corral.runtime.core import Effect, Note, Persist
from corral.sdk.effects import Call
from corral.sdk.scheduler import CallFailed

Groups = Mapping[str, GroupRecord | None]
"""What groups are to be, or None for those that go. Shapes: their versions do not count."""
NO_GROUPS: Groups = {}
NOT_AT_THE_TOP = "only a group at the top enforces its role, for all below it"


# Of apps.


def give_role(state: State, spec: AppSpec, groups: Groups) -> AppSpec:
    """The definition with the app's role. Shapes: `groups` change together with it. Errors: `Unprocessable`."""
    app = state.visible(spec.id)
    if spec.role is None:
        return replace(spec, role=_default(state, spec.id, groups) if app is None else app.spec.role)
    had = None if app is None else own_role(app.spec, state.config)
    if app is not None and spec.role == had:
        # Whose role is the framework's without saying so goes on to follow that.
        return replace(spec, role=app.spec.role)
    allowed = _allowed(state, spec.id, groups)
    if spec.role not in allowed:
        text = f"got {spec.role!r}, expected one of: {', '.join(dict.fromkeys([*allowed, *([had] if had else [])]))}"
        raise Unprocessable("Object is not valid", {"/role": [text]})
    return spec


def _default(state: State, app_id: str, groups: Groups) -> str | None:
    return group_role(app_id) if is_enforced(state, app_id, groups) else None


def _allowed(state: State, app_id: str, groups: Groups) -> list[str]:
    of_group = group_role(app_id)
    if of_group is None:
        return [state.config.role]
    return [of_group] if is_enforced(state, app_id, groups) else [state.config.role, of_group]


def is_enforced(state: State, app_id: str, groups: Groups = NO_GROUPS) -> bool:
    """Whether new definitions at this path get their group's role and no other."""
    if group_role(app_id) is None:
        return False
    top = top_group(app_id)
    record = groups[top] if top in groups else state.groups.get(top)
    return state.config.enforce_group_roles if record is None else record.enforce_role


def is_top(group_id: str) -> bool:
    """Whether the group may enforce its role."""
    return group_id != "/" and top_group(group_id) == group_id


def differs(record: GroupRecord | None, old: GroupRecord | None) -> bool:
    """Whether the group changes, its version aside."""
    if record is None or old is None:
        return record is not old
    return replace(record, version=old.version) != old


def make_group(state: State, group_id: str, version: str = "") -> GroupRecord:
    """A group that nobody has described."""
    return GroupRecord(id=group_id, version=version, enforce_role=is_top(group_id) and state.config.enforce_group_roles)


# Of the framework.


def take_part(state: State) -> list[Effect]:
    """Say in which roles the framework is, and for which of them it takes what is reserved, when that has changed."""
    if not state.connected or state.framework_id is None:
        return []
    return [*_say_roles(state), *_open_roles(state), *_close_roles(state)]


def _say_roles(state: State) -> list[Effect]:
    if not state.roles.stale or state.framework_id is None:
        return []
    state.roles.stale = False
    roles = state.roles.wanted(state.config.role)
    if roles == state.roles.told:
        return []
    state.roles.told = roles
    state.roles.open.intersection_update(roles)
    state.roles.news.update(state.roles.waiting.keys() - state.roles.open)
    info = replace(state.info, id=state.framework_id, roles=roles)
    suppressed = tuple(role for role in roles if role not in state.roles.reserved | state.roles.open)
    return [Call(calls.UpdateFramework(info=info, suppressed_roles=suppressed))]


def _open_roles(state: State) -> list[Effect]:
    """Ask for what is reserved where apps have begun to wait for it, or may take now what they have refused."""
    roles = tuple(sorted(r for r in state.roles.news if r in state.roles.waiting and r in state.roles.told))
    state.roles.news.clear()
    if not roles or state.framework_id is None:
        return []
    state.roles.open.update(roles)
    return [Call(calls.Revive(framework_id=state.framework_id, roles=roles))]


def _close_roles(state: State) -> list[Effect]:
    """Nothing waits for it any more."""
    idle = state.roles.open - state.roles.waiting.keys()
    if not idle or state.framework_id is None:
        return []
    state.roles.open -= idle
    roles = tuple(sorted(idle - state.roles.reserved))
    return [Call(calls.Suppress(framework_id=state.framework_id, roles=roles))] if roles else []


def revive_reserved(state: State) -> list[Effect]:
    """Ask for offers of what is reserved, at once and without filters."""
    roles = tuple(role for role in state.roles.told if role in state.roles.reserved)
    if not roles or not state.connected or state.framework_id is None:
        return []
    return [Call(calls.Revive(framework_id=state.framework_id, roles=roles))]


def become_resident(state: State, role: str, now: float) -> list[Effect]:
    """From the first app with volumes on, and in every life to come, offers of what is reserved are asked for."""
    if role in state.roles.reserved:
        return []
    state.roles.reserve(role)
    record = Persist(f"{RESIDENCY}/{role}", ResidentRecord(since_at=now))
    return [record, *take_part(state), *revive_reserved(state)]


def take_refusal(state: State, failed: CallFailed) -> list[Effect]:
    """The master would not have the framework in these roles: without them it goes on, and their apps wait.

    They are asked for again by the next process.
    """
    assert isinstance(failed.call, calls.UpdateFramework)
    asked = [role for role in failed.call.info.roles if role not in state.info.roles]
    # All are asked for together, and only the words of the answer tell which of them are meant.
    meant = [role for role in asked if repr(role) in failed.why] or asked
    state.roles.refused.update(dict.fromkeys(meant, failed.why))
    state.roles.begin(())
    state.restless.update(dict.fromkeys(state.apps))
    return [Note("roles refused", failed.why, "error", {"roles": meant})]
