"""Does what the keeper of trust decides: signs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from corral.lib.errors import CorralError
from corral.net.certificates import Authority, describe, read_request
from corral.trust.effects import Issue, Recheck
from corral.trust.spec import Issued

ANSWER_S = 0.05


class TrustShell:
    """Shapes: `recheck` cuts off whoever is connected and would not be let in any more."""

    def __init__(self, authority: Authority, recheck: Callable[[], Awaitable[None]]) -> None:
        self.authority = authority
        self._recheck = recheck

    def perform(self, effect: Any) -> Awaitable[Any] | None:
        match effect:
            case Issue():
                return self._sign(effect)
            case Recheck():
                return self._recheck_soon()
            case _:
                raise TypeError(f"{type(effect).__name__} is no effect of trust")

    def flush(self) -> None:
        """Nothing is gathered."""

    async def _recheck_soon(self) -> None:
        """Who revokes their own token still gets the answer."""
        await asyncio.sleep(ANSWER_S)
        await self._recheck()

    async def _sign(self, effect: Issue) -> Issued:
        try:
            key = read_request(effect.request)
            pem = self.authority.issue(
                key, name=effect.name, kind="agent", names=effect.names, now=effect.now, life_s=effect.life_s
            )
        except CorralError as error:
            return Issued(ask=effect.ask, name=effect.name, why=error.message)
        made = describe(pem)
        return Issued(ask=effect.ask, name=effect.name, certificate=pem, serial=made.serial, expires_at=made.not_after)
