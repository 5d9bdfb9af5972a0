"""Does what the keeper of trust decides: signs."""

from collections.abc import Awaitable
from typing import Any

from corral.lib.errors import CorralError
from corral.net.certificates import Authority, describe, read_request
from corral.trust.effects import Issue
from corral.trust.spec import Issued


class TrustShell:
    def __init__(self, authority: Authority) -> None:
        self.authority = authority

    def perform(self, effect: Any) -> Awaitable[Any] | None:
        match effect:
            case Issue():
                return self._sign(effect)
            case _:
                raise TypeError(f"{type(effect).__name__} is no effect of trust")

    def flush(self) -> None:
        """Nothing is gathered."""

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
