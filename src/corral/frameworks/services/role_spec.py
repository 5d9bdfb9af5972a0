"""The roles of apps and of the framework: for whom an app is launched, and in which roles the framework therefore is.

An app has the framework's own role, or that of its group: the name of the group at the top. Source: Marathon's
contract, sections 2 and 5; its pages on several roles.
"""

from collections import Counter

import msgspec

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.spec import Config

RESIDENCY = "residency"
"""The prefix of the records of roles for which something was reserved. One without a role behind it is of the first
releases, which knew one such role."""


class ResidentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """That something was to be reserved for a role once. Units: seconds UTC."""

    since_at: float


class Roles:
    """In which roles the framework is, and why.

    Shapes: `apps` counts the apps that are launched in each role, `reserved` are those for which something was ever
    reserved: in these it stays, so that what nobody has any more is offered to it and can be freed. `told` is what the
    master has heard last; `refused` are the roles that it would not have the framework in, and why. It has to be told
    again once these are `stale`.
    """

    __slots__ = ("apps", "refused", "reserved", "stale", "told")

    def __init__(self) -> None:
        self.apps: Counter[str] = Counter()
        self.reserved: set[str] = set()
        self.told: tuple[str, ...] = ()
        self.refused: dict[str, str] = {}
        self.stale = False

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

    def begin(self, told: tuple[str, ...]) -> None:
        """The framework has subscribed anew, in these roles."""
        self.told = told
        self.stale = True


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
