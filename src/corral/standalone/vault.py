"""Makes the vault of a leading master: its loop, its routes, its keys, and who is told when a value changes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from corral.frameworks.services.discovery_spec import SecretChanged
from corral.lib.errors import CorralError
from corral.lib.log import get_logger
from corral.master.spec import GetSources
from corral.net.routes import RawRoute, Route
from corral.net.stream import SECRETS_PATH
from corral.runtime.leader import Tenure
from corral.runtime.loop import Loop
from corral.runtime.notes import Notes
from corral.runtime.service import Background, Service
from corral.sdk.framework import FrameworkService
from corral.sdk.rights import guard
from corral.standalone.config import VaultSection
from corral.store.base import Store
from corral.vault.core import VaultCore, VaultShell
from corral.vault.routes import reseal, routes
from corral.vault.sealing import Keys, add_key, read_keys

log = get_logger("vault")

Ask = Callable[[Any], Awaitable[Any]]
React = Callable[[str], Awaitable[None]]


def open_keys(section: VaultSection, work_dir: Path, *, make: bool = False) -> Keys:
    """The keys that secrets are sealed with; none without a file. Shapes: with `make` there is one beside the records.

    Errors: `Invalid` when the file cannot be used.
    """
    if section.key_file:
        return read_keys(Path(section.key_file))
    if not make:
        return Keys()
    path = work_dir / "vault.key"
    if not path.exists():
        add_key(path, "dev")
    return read_keys(path)


def react_to_secrets(services: FrameworkService) -> React:
    """The services framework replaces the instances of apps that ask for it."""

    async def react(source: str) -> None:
        await services.loop.ask(SecretChanged(source=source))

    return react


class VaultPart:
    """Shapes: `reactions` are told the source whose value has become another one; `roles` are those of the apps that
    values are for: whoever may not change these may not change values either.
    """

    def __init__(
        self, keys: Keys, store: Store, notes: Notes, master: Ask, fence: Tenure | None, reactions: Sequence[React],
        roles: Sequence[str],
    ) -> None:  # fmt: skip
        self.loop = Loop(VaultCore(), VaultShell(), store, prefix="vault/", name="vault", notes=notes, fence=fence)
        self._keys = keys
        self._master = master
        self._reactions = reactions
        table = routes(self.loop.ask, keys, self._needed, self._changed)
        self.routes: Sequence[Route | RawRoute] = guard(table, "services", roles, {SECRETS_PATH})
        self.services: list[Service] = [self.loop, Background("vault keys", self._reseal)]

    async def _needed(self, session: str, framework_id: str, task_id: str) -> Sequence[str]:
        found: Sequence[str] = await self._master(
            GetSources(session=session, framework_id=framework_id, task_id=task_id)
        )
        return found

    async def _changed(self, source: str) -> None:
        for react in self._reactions:
            try:
                await react(source)
            except CorralError as error:
                log.warning("change not acted on", source=source, why=error.message)

    async def _reseal(self) -> None:
        await self.loop.ready.wait()
        await reseal(self.loop.ask, self._keys)
        await asyncio.Event().wait()
