"""Finds frameworks by their entry points, ours included, and makes them parts of a daemon."""

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from random import Random
from typing import Any

import msgspec

from corral.lib.errors import NotFound
from corral.net.access import NO_ACCESS, Access
from corral.runtime.core import Core
from corral.runtime.journal import Header, Replayable
from corral.runtime.loop import Fence
from corral.runtime.notes import Notes
from corral.sdk.framework import Framework, FrameworkService
from corral.sdk.scheduler import Session
from corral.sdk.transport import Transport
from corral.standalone.config import Config, parse_listen, wants_tls
from corral.standalone.parts import Recording, draw_seed
from corral.store.base import Store

GROUP = "corral.frameworks"


def framework_names() -> list[str]:
    return sorted({point.name for point in entry_points(group=GROUP)})


def find_builder(name: str) -> Callable[[Any, Random], Framework]:
    """The `build` of a framework package.

    Errors: `NotFound` lists the frameworks that are installed.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            builder: Callable[[Any, Random], Framework] = point.load()
            return builder
    raise NotFound(f"there is no framework {name!r}; installed are {', '.join(framework_names()) or 'none'}")


def framework_config(name: str, config: Config, address: str, **more: Any) -> Any:
    """What a framework is built from: its own `Config`, with the values of the section of its name.

    Shapes: `address` is the `host:port` of its front door; a `scheme` is what the cluster speaks; of `more`
    it takes what its `Config` has.
    """
    kind = sys.modules[find_builder(name).__module__].Config
    known = {field.name for field in msgspec.structs.fields(kind)}
    section = getattr(config, name, None)
    values = {} if section is None else {key: getattr(section, key) for key in section.__dataclass_fields__}
    host, _ = parse_listen(config.master.listen, "master.listen")
    scheme = "https" if wants_tls(host, config.master.insecure, config.trust.tls) else "http"
    return kind(**{k: v for k, v in {**values, "address": address, "scheme": scheme, **more}.items() if k in known})


def make_framework(
    name: str,
    config: Config,
    address: str,
    transport: Transport,
    store: Store,
    notes: Notes,
    recording: Recording,
    fence: Fence | None = None,
    access: Access = NO_ACCESS,
) -> FrameworkService:
    """A framework ready to run over `transport`. Shapes: `access` is how it reaches agents."""
    seed = draw_seed()
    random = Random(seed)
    cacert = access.keys.ca_path if access.keys is not None else access.cacert
    own = framework_config(name, config, address, cacert=cacert, most_commit_bytes=store.most_bytes)
    framework = find_builder(name)(own, random)
    journal = recording.journal(name, name, seed, own)
    return FrameworkService(
        framework, transport, store, random=random, recorder=journal, notes=notes, fence=fence, access=access
    )


def replayable_frameworks() -> dict[str, Replayable]:
    """How the journals of the installed frameworks are run again."""
    return {name: _replayable(name) for name in framework_names()}


def _replayable(name: str) -> Replayable:
    builder = find_builder(name)
    package = sys.modules[builder.__module__]

    def build(header: Header) -> Core:
        random = Random(header.seed)
        framework = builder(msgspec.msgpack.decode(header.config, type=package.Config), random)
        return Session(framework.info, framework.core, random)

    return Replayable(package.Input, build)
