"""The keeper of trust as a core: who may join, who may ask, until when."""

from collections.abc import Sequence
from typing import assert_never

from corral.runtime.core import Asked, Effect, Loaded, SetTimer, Tick, decode_records
from corral.trust import nodes, tokens
from corral.trust.spec import (
    Command,
    CreateToken,
    Input,
    Issued,
    ListNodes,
    ListTokens,
    NodeRecord,
    Redeem,
    Renew,
    RevokeNode,
    RevokeToken,
    TokenRecord,
    TrustConfig,
)
from corral.trust.state import TrustState


class TrustCore:
    __slots__ = ("state",)
    reads = (ListTokens, ListNodes)

    def __init__(self, config: TrustConfig) -> None:
        self.state = TrustState(config)

    def handle(self, input: Input, now: float) -> Sequence[Effect]:
        match input:
            case Asked(ask=ask, command=command):
                return self._answer(ask, command, now)
            case Issued():
                return nodes.record_issued(self.state, input, now)
            case Tick():
                return tokens.prune(self.state, now)
            case Loaded():
                self.state.tokens = decode_records(input, "tokens/", TokenRecord)
                self.state.nodes = decode_records(input, "nodes/", NodeRecord)
                return [SetTimer(tokens.PRUNE_TIMER, 0.0)]
            case _ as never:
                assert_never(never)

    def _answer(self, ask: int, command: Command, now: float) -> Sequence[Effect]:
        match command:
            case CreateToken():
                return tokens.create_token(self.state, ask, command, now)
            case ListTokens():
                return tokens.list_tokens(self.state, ask, command, now)
            case RevokeToken():
                return tokens.revoke_token(self.state, ask, command, now)
            case Redeem():
                return nodes.redeem(self.state, ask, command, now)
            case Renew():
                return nodes.renew(self.state, ask, command, now)
            case ListNodes():
                return nodes.list_nodes(self.state, ask, command, now)
            case RevokeNode():
                return nodes.revoke_node(self.state, ask, command, now)
            case _ as never:
                assert_never(never)

    def invariants(self) -> None:
        self.state.invariants()
