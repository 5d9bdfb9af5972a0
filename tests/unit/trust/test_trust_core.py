"""Tokens and nodes: made, used once, expired, revoked, remembered over a restart; nothing is half applied."""

from collections.abc import Iterator
from typing import Any

import pytest

from corral.lib.errors import CorralError, Forbidden, Invalid, NotFound, Unauthenticated
from corral.net.auth import CallerKind, Token, digest
from corral.runtime.core import Asked, Loaded, Persist, Refuse, Reply, Stored, Tick, decide, encode_record, persists
from corral.trust.core import TrustCore
from corral.trust.effects import Issue, Recheck
from corral.trust.nodes import choose_names
from corral.trust.spec import (
    CreateToken,
    Granted,
    Issued,
    ListNodes,
    ListTokens,
    Redeem,
    Renew,
    RevokeNode,
    RevokeToken,
    TrustConfig,
)
from corral.trust.state import find_caller, find_node

NOW = 1_000_000.0
SECRET = "0" * 40
CONFIG = TrustConfig(fingerprint="f" * 32, reserved=("master1", "10.0.0.5"))


@pytest.fixture
def core() -> Iterator[TrustCore]:
    made = TrustCore(CONFIG)
    made.handle(Loaded(), NOW)
    yield made
    made.invariants()


def ask(core: TrustCore, command: Any, now: float = NOW) -> list[Any]:
    """All effects; the refusal raised."""
    effects = list(decide(core, Asked(1, command), now))
    for effect in effects:
        if isinstance(effect, Refuse):
            raise effect.error
    return effects


def reply(core: TrustCore, command: Any, now: float = NOW) -> Any:
    (found,) = [e.value for e in ask(core, command, now) if isinstance(e, Reply)]
    return found


def joining(id: str = "aa", **more: Any) -> CreateToken:
    return CreateToken(id=id, digest=digest(SECRET), joins=True, **more)


def redeeming(id: str = "aa", key: str = "key1", name: str = "node1", **more: Any) -> Redeem:
    return Redeem(id=id, digest=digest(SECRET), name=name, names=("10.0.0.9",), request=b"pem", key=key, **more)


def records(effects: list[Any]) -> Loaded:
    kept = {e.key: e.record for e in persists(effects)}
    return Loaded(tuple(Stored(k, encode_record(r)) for k, r in sorted(kept.items()) if r is not None))


def test_a_node_joins_with_a_token_once_and_another_is_told_by_whom_it_was_used(core: TrustCore) -> None:
    ask(core, joining())
    effects = ask(core, redeeming(), NOW + 5)
    (issue,) = [e for e in effects if isinstance(e, Issue)]
    assert (issue.name, issue.names, issue.life_s) == ("node1", ("node1", "10.0.0.9"), CONFIG.certificate_ttl_s)
    assert [type(e) for e in effects].index(Persist) < [type(e) for e in effects].index(Issue)
    with pytest.raises(Forbidden, match=r"was used by node1 at .*; make another"):
        ask(core, redeeming(key="key2", name="node2"), NOW + 6)


def test_the_same_node_may_ask_again_when_the_answer_was_lost(core: TrustCore) -> None:
    ask(core, joining())
    ask(core, redeeming())
    assert [e for e in ask(core, redeeming()) if isinstance(e, Issue)]


def test_a_certificate_is_remembered_before_it_is_handed_over(core: TrustCore) -> None:
    ask(core, joining())
    ask(core, redeeming())
    effects = core.handle(Issued(ask=1, name="node1", certificate=b"pem", serial="ab", expires_at=NOW + 60), NOW)
    assert [type(e).__name__ for e in effects] == ["Persist", "Note", "Reply"]
    (found,) = [e.value for e in effects if isinstance(e, Reply)]
    assert found == Granted(b"pem", NOW + 60)
    (shown,) = reply(core, ListNodes())
    assert (shown["name"], shown["state"], shown["serial"], shown["token"]) == ("node1", "valid", "ab", "aa")


def test_a_request_that_cannot_be_signed_is_refused_in_words(core: TrustCore) -> None:
    (refusal,) = core.handle(Issued(ask=1, name="n", why="the signing request cannot be read"), NOW)
    assert isinstance(refusal, Refuse)
    assert refusal.error.message == "the signing request cannot be read"


@pytest.mark.parametrize(
    ("command", "late_s", "kind", "words"),
    [
        (redeeming("bb"), 0, Unauthenticated, "not known here"),
        (
            Redeem(id="aa", digest=digest("wrong"), name="n", names=(), request=b"", key="k"),
            0,
            Unauthenticated,
            "not kn",
        ),
        (redeeming(), 3600, Unauthenticated, "has expired at"),
        (redeeming(name=""), 0, Invalid, "give one of up to 64"),
        (redeeming(name="näme"), 0, Invalid, "give one of up to 64"),
        (redeeming("cc"), 0, Forbidden, "is of caller ci"),
        (RevokeToken(which="zz"), 0, NotFound, "corral token ls"),
        (RevokeNode(name="zz"), 0, NotFound, "corral ca nodes"),
        (CreateToken(id="d", digest="d" * 64), 0, Invalid, "has a name"),
        (CreateToken(id="d", digest="d" * 64, joins=True, roles=("a",)), 0, Invalid, "no roles"),
        (CreateToken(id="d", digest="d" * 64, name="a b"), 0, Invalid, "is not taken"),
        (CreateToken(id="d", digest="d" * 64, name="a", roles=("x/../y",)), 0, Invalid, "level"),
        (CreateToken(id="d", digest="d" * 64, name="a", ttl_s=1e12), 0, Invalid, "10 years"),
        (CreateToken(id="d", digest="d" * 64, name="a", ttl_s=-1), 0, Invalid, "10 years"),
        (joining("d", ttl_s=0.0), 0, Invalid, "has to expire"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    core: TrustCore, command: Any, late_s: float, kind: type[CorralError], words: str
) -> None:
    ask(core, joining())
    ask(core, CreateToken(id="cc", digest=digest(SECRET), name="ci"))
    before = dict(core.state.tokens), dict(core.state.nodes)
    with pytest.raises(kind, match=words):
        ask(core, command, NOW + late_s)
    assert (core.state.tokens, core.state.nodes) == before


def test_a_token_is_worth_something_until_it_expires_or_is_revoked(core: TrustCore) -> None:
    ask(core, CreateToken(id="cc", digest=digest(SECRET), name="ci", roles=("ads",), ttl_s=60))
    token = Token("cc", SECRET)
    found = find_caller(core.state, token, digest(SECRET), NOW + 59)
    assert (found.kind, found.name, found.roles) == (CallerKind.TOKEN, "ci", ("ads",))
    with pytest.raises(Unauthenticated, match="has expired"):
        find_caller(core.state, token, digest(SECRET), NOW + 60)
    assert reply(core, RevokeToken(which="ci")) == ["cc"]
    with pytest.raises(Unauthenticated, match="not known here"):
        find_caller(core.state, token, digest(SECRET), NOW)


def test_a_token_to_join_with_opens_no_api(core: TrustCore) -> None:
    ask(core, joining())
    for token in (Token("aa", SECRET), Token("aa", SECRET, "f" * 32)):
        with pytest.raises(Unauthenticated, match="for a node to join with"):
            find_caller(core.state, token, digest(SECRET), NOW)


def test_a_revoked_node_is_refused_until_it_joins_again(core: TrustCore) -> None:
    ask(core, joining())
    ask(core, redeeming())
    ask(core, RevokeNode(name="node1"))
    with pytest.raises(Forbidden, match="was revoked at"):
        find_node(core.state, "node1")
    with pytest.raises(Forbidden, match="was revoked at"):
        ask(core, Renew(name="node1", names=(), request=b"pem"))
    ask(core, joining("bb"))
    ask(core, redeeming("bb", key="key2"))
    assert find_node(core.state, "node1").name == "node1"
    assert find_node(core.state, "never seen").kind is CallerKind.AGENT


def test_everything_is_remembered_over_a_restart_and_no_secret_is(core: TrustCore) -> None:
    effects = ask(core, joining()) + ask(core, CreateToken(id="cc", digest=digest(SECRET), name="ci"))
    effects += ask(core, redeeming())
    loaded = records(effects)
    again = TrustCore(CONFIG)
    again.handle(loaded, NOW)
    again.invariants()
    assert (again.state.tokens, again.state.nodes) == (core.state.tokens, core.state.nodes)
    assert all(SECRET.encode() not in stored.value for stored in loaded.records)
    assert SECRET not in repr(reply(core, ListTokens()))


def test_what_has_long_been_over_is_forgotten(core: TrustCore) -> None:
    ask(core, joining())
    ask(core, CreateToken(id="cc", digest=digest(SECRET), name="ci", ttl_s=0.0))
    core.handle(Tick("prune"), NOW + 7 * 86_400)
    assert set(core.state.tokens) == {"aa", "cc"}
    core.handle(Tick("prune"), NOW + 7 * 86_400 + 3600)
    assert set(core.state.tokens) == {"cc"}
    (shown,) = reply(core, ListTokens(), NOW + 1e8)
    assert (shown["state"], shown["expires"]) == ("valid", None)


def test_no_agent_gets_a_name_of_a_master_into_its_certificate(core: TrustCore) -> None:
    asked = ("master1", "10.0.0.5", "master.corral.internal", "x.CORRAL.internal.", "10.0.0.9", "localhost")
    assert choose_names(core.state, "node1", asked, "10.0.0.9") == ("node1", "10.0.0.9", "localhost")


def test_who_is_connected_is_looked_at_again_when_somebody_is_revoked(core: TrustCore) -> None:
    ask(core, joining())
    ask(core, redeeming())
    ask(core, CreateToken(id="cc", digest=digest(SECRET), name="ci"))
    for command in (RevokeNode(name="node1"), RevokeToken(which="ci")):
        kinds = [type(effect) for effect in ask(core, command)]
        assert kinds.index(Persist) < kinds.index(Recheck) < kinds.index(Reply)
