"""The roles of apps and of the framework: for whom an app is launched, and in which roles the framework therefore is.

An app has the framework's own role, or that of its group: the name of the group at the top. Source: Marathon's
contract, sections 2 and 5; its pages on several roles.
"""

from collections import Counter
from typing import NamedTuple

import msgspec

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.spec import Config

RESIDENCY = "residency"
"""The prefix of the records of roles for which something was reserved. One without a role behind it is of the first
releases, which knew one such role."""


class ResidentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """That something was to be reserved for a role once. Units: seconds UTC."""

    since_at: float


class Asking(NamedTuple):
    """Shapes: `lacking` instances of the app wait, `present` ones have a task."""

    role: str
    config: str
    lacking: int
    present: int


class Roles:
    """In which roles the framework is, and why.

    Shapes: `apps` counts the apps that are launched in each role, `reserved` are those for which something was ever
    reserved: in these it stays, so that what nobody has any more is offered to it and can be freed. `told` is what the
    master has heard last; `refused` are the roles that it would not have the framework in, and why. It has to be told
    again once these are `stale`.

    `asking` are the apps that wait for what is reserved for their roles: for which, in which definition, how many and
    beside how many; `waiting` counts them by role. While there are any, the role is `open`: the master offers what is
    reserved for it. It is to be asked anew, as what was refused may be taken now, for the roles in `news`.
    """

    __slots__ = ("apps", "asking", "news", "open", "refused", "reserved", "stale", "told", "waiting")

    def __init__(self) -> None:
        self.apps: Counter[str] = Counter()
        self.reserved: set[str] = set()
        self.told: tuple[str, ...] = ()
        self.refused: dict[str, str] = {}
        self.stale = False
        self.asking: dict[str, Asking] = {}
        self.waiting: Counter[str] = Counter()
        self.open: set[str] = set()
        self.news: set[str] = set()

    def wanted(self, own: str) -> tuple[str, ...]:
        """What the framework has to be in. Shapes: its own role first, the others sorted."""
        others = {*self.apps, *self.reserved} - {own} - self.refused.keys()
        return (own, *sorted(others))

    def enter(self, spec: AppSpec, config: Config) -> None:
        """One more app of this role."""
        role = launch_role(spec, config)
        self.stale |= role not in self.apps
        self.apps[role] += 1

    def leave(self, spec: AppSpec, config: Config) -> None:
        """One app of this role fewer."""
        role = launch_role(spec, config)
        self.apps[role] -= 1
        if not self.apps[role]:
            del self.apps[role]
            self.stale = True

    def reserve(self, role: str) -> None:
        """Something is to be reserved for this role."""
        self.reserved.add(role)
        self.stale = True

    def ask(self, app_id: str, asking: Asking | None) -> bool:
        """The app waits for this, or for nothing; returns whether it may take now what it has refused.

        That is so for more instances or other ones, and when fewer are left that constraints count.
        """
        old = self.asking.pop(app_id, None)
        if old is not None:
            self.waiting[old.role] -= 1
            if not self.waiting[old.role]:
                del self.waiting[old.role]
        if asking is None:
            return False
        self.asking[app_id] = asking
        self.waiting[asking.role] += 1
        is_new = old is None or old[:2] != asking[:2] or asking.lacking > old.lacking or asking.present < old.present
        if is_new:
            self.news.add(asking.role)
        return is_new

    def begin(self, told: tuple[str, ...]) -> None:
        """The framework has subscribed anew, in these roles, and is offered nothing yet."""
        self.told = told
        self.stale = True
        self.open.clear()
        self.news.update(self.waiting)


def own_role(spec: AppSpec, config: Config) -> str:
    """The app's role, as its definition has it."""
    return spec.role or config.role


def launch_role(spec: AppSpec, config: Config) -> str:
    """For whom the app's resources are: its role, or what the framework reserves for where nothing can be for `*`."""
    role = own_role(spec, config)
    return config.reserved_role if spec.volumes and role == config.role else role


def needed_roles(spec: AppSpec, config: Config) -> tuple[str, ...]:
    """Whoever changes the app needs them all."""
    return tuple(dict.fromkeys((own_role(spec, config), launch_role(spec, config))))


def top_group(path: str) -> str:
    """The group at the top that this is below, or is itself. Shapes: an app's path has to be below some group."""
    return "/" + path.split("/", 2)[1]


def group_role(app_id: str) -> str | None:
    """The role of the group at the top that the app is in; None in the root group, which has none."""
    return top_group(app_id)[1:] if app_id.count("/") > 1 else None
