"""What the services framework can be told and asked, and what it answers to a change.

Source: Marathon's contract, section 16.
"""

import msgspec

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.discovery_spec import DiscoveryCommand, GetRegistry, GetTraffic
from corral.frameworks.services.record_spec import Policy
from corral.frameworks.services.scaling_spec import GetScaling, GetUsage, ScalingCommand
from corral.frameworks.services.webhook_spec import GetWebhooks, WebhookCommand
from corral.net.auth import Caller


class AppUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one app. Shapes: only the fields named in `given` count; with `to_version` nothing else does."""

    id: str
    spec: AppSpec
    given: tuple[str, ...] = ()
    to_version: str | None = None


class GroupUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What a group is to hold and be. Shapes: None keeps what there is, a list names all there shall be."""

    id: str
    apps: tuple[AppSpec, ...] | None = None
    pods: tuple[AppSpec, ...] | None = None
    groups: "tuple[GroupUpdate, ...] | None" = None
    dependencies: tuple[str, ...] | None = None
    enforce_role: bool | None = None


class CreateApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `ignored` are paths of the request that nobody understood; they are noted and do no harm.

    `client` and `uri` tell whose request it was, for those who listen to events.
    """

    spec: AppSpec
    force: bool = False
    policy: Policy | None = None
    ignored: tuple[str, ...] = ()
    client: str = ""
    uri: str = ""


class UpdateApps(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: with `partial` what is not given stays, else it takes its default; with `create` unknown apps are made.

    `single` says that one app was addressed by its path; a `dry_run` changes nothing. `ignored`, `client`, `uri` as in
    `CreateApp`.
    """

    updates: tuple[AppUpdate, ...]
    partial: bool = True
    create: bool = True
    force: bool = False
    policy: Policy | None = None
    seen: str | None = None
    single: bool = False
    pod: bool = False
    dry_run: bool = False
    ignored: tuple[str, ...] = ()
    client: str = ""
    uri: str = ""


class DeleteApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = True
    seen: str | None = None
    pod: bool = False
    client: str = ""
    uri: str = ""


class RestartApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = False
    policy: Policy | None = None
    seen: str | None = None


class CreateGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `ignored` as in `CreateApp`."""

    update: GroupUpdate
    force: bool = False
    policy: Policy | None = None
    ignored: tuple[str, ...] = ()


class UpdateGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: with `scale_by` or `to_version` only the id of `update` counts; a `dry_run` changes nothing."""

    update: GroupUpdate
    scale_by: float | None = None
    to_version: str | None = None
    dry_run: bool = False
    diff: bool = False
    force: bool = False
    policy: Policy | None = None
    ignored: tuple[str, ...] = ()


class PatchGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Whether what is new below a group at the top gets its role."""

    id: str
    enforce_role: bool


class DeleteGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = False


class KillTasks(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End tasks, of one app or by their ids. Shapes: with `scale` they are not replaced; `host` None is any.

    `instances` None is all of the app; `incarnations` may name for some of them the only launch that is meant. With
    `strict` an unknown instance is an error.
    """

    app: str | None = None
    instances: tuple[str, ...] | None = None
    incarnations: dict[str, int] = {}
    host: str | None = None
    scale: bool = False
    wipe: bool = False
    force: bool = False
    strict: bool = False


class ResetDelay(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str


class PauseDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop going on, or with `paused` false go on again."""

    id: str
    paused: bool = True


class PromoteDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let a deployment go on beyond its canary. Shapes: with `share` below 100 only traffic is moved."""

    id: str
    share: int = 100


class GetDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One deployment with what corral alone knows of it, under way or ended."""

    id: str


class GetEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The deployments that ended last."""


class CancelDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = False


class GetApps(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `below` is a group; `id` and `cmd` are parts of what is looked for."""

    below: str = "/"
    cmd: str | None = None
    id: str | None = None
    label: str | None = None
    embed: tuple[str, ...] = ()


class GetApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    embed: tuple[str, ...] = ()


class GetVersions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str


class GetVersion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    version: str


class GetPods(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All pods. Shapes: with `status` their state instead of their definition."""

    status: bool = False


class GetPod(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `what` is `spec`, `status`, `versions` or `version`."""

    id: str
    what: str = "spec"
    version: str = ""


class KillPod(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End instances of a pod; they are replaced. Shapes: with `strict` an unknown one is an error."""

    id: str
    instances: tuple[str, ...]
    strict: bool = False


class GetTasks(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `app` or `below` or neither; `states` filter by `running`, `staging`; `as_text` gives the line form."""

    app: str | None = None
    below: str | None = None
    states: tuple[str, ...] = ()
    as_text: bool = False


class GetQueue(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    embed: tuple[str, ...] = ()


class GetAvoided(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The nodes that apps use only when nothing else fits. corral's own."""


class GetDeployments(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str = "/"
    embed: tuple[str, ...] = ()


class GetGroupVersions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str = "/"


class GetGroupVersion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    version: str


class GetInfo(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetLeader(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetNumbers(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How many there are of each kind of thing. Reply: numbers by name."""


class GetConfig(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How this framework is set up. Reply: the fields of `Config`."""


class Bound(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A command of a caller who is bound to roles, and may change what these hold."""

    caller: Caller
    command: "Command"


class PlanApps(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What would be asked of the kernel if these apps were applied; nothing is changed. corral's own.

    Shapes: `unknown` are the paths of fields that nobody knows.
    """

    specs: tuple[AppSpec, ...]
    unknown: tuple[str, ...] = ()


Command = (
    CreateApp | UpdateApps | DeleteApp | RestartApp | CreateGroup | UpdateGroup | DeleteGroup | KillTasks | ResetDelay
    | CancelDeployment | GetApps | GetApp | GetVersions | GetVersion | GetTasks | GetQueue | GetDeployments | GetGroup
    | GetInfo | GetLeader | PlanApps | GetGroupVersions | GetGroupVersion | PatchGroup
    | GetPods | GetPod | KillPod | PauseDeployment | PromoteDeployment | GetDeployment | GetEnded | DiscoveryCommand
    | ScalingCommand | GetAvoided | WebhookCommand | GetNumbers | GetConfig | Bound
)  # fmt: skip


READS = (
    GetApps, GetApp, GetVersions, GetVersion, GetTasks, GetQueue, GetDeployments, GetDeployment, GetGroup,
    GetGroupVersion, GetGroupVersions, GetPod, GetPods, GetEnded, GetRegistry, GetTraffic, GetInfo, GetLeader, PlanApps,
    GetScaling, GetUsage, GetAvoided, GetWebhooks, GetNumbers, GetConfig,
)  # fmt: skip
"""The commands that change nothing."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploying command answers with. Shapes: `created` when the app did not exist before."""

    version: str
    deployment_id: str
    created: bool = False
    id: str = ""
