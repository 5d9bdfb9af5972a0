"""An agent as it introduces itself. Source: Mesos v1 AgentInfo."""

import msgspec

from corral.model.attributes import Attribute
from corral.model.domain import Domain
from corral.model.ids import AgentId
from corral.model.resources import Resources


class AgentInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `hostname` is what tasks see as HOST and what clients reach; `port` serves the agent's API.

    `runtimes` are the names of what it can run tasks with: `docker`, `process`; `unready_runtimes` are those it has but
    cannot start anything with now, as when their daemon does not answer.
    """

    hostname: str
    port: int
    resources: Resources
    id: AgentId | None = None
    ip: str = "127.0.0.1"
    attributes: tuple[Attribute, ...] = ()
    version: str = ""
    runtimes: tuple[str, ...] = ()
    domain: Domain | None = None
    unready_runtimes: tuple[str, ...] = ()
