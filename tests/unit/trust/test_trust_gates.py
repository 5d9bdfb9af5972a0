"""The gates before the daemons: whom they let in, whom they ask, and what they remember."""

import base64
from typing import Any

import pytest

from corral.agent.executor_routes import check_claims
from corral.lib.errors import CorralError, Forbidden, Invalid, Unauthenticated, Unavailable
from corral.model.executor import Heartbeat
from corral.model.ids import ExecutorId, FrameworkId
from corral.net.auth import ANYBODY, Caller, CallerKind, Knock, Token, digest
from corral.runtime.core import encode_record
from corral.store.memory import MemoryStore
from corral.trust.gate import AgentGate, ExecutorTokens, FollowerGate, MasterGate
from corral.trust.spec import NodeRecord, TokenRecord, TrustConfig
from corral.trust.state import TrustState

TOKEN = Token("ab12", "5" * 40)
RECORD = TokenRecord(id="ab12", digest=digest(TOKEN.secret), joins=False, created_at=0.0, name="ci", expires_at=100.0)
EXECUTORS = ExecutorTokens(b"k" * 32)
EXECUTOR_API = "/api/v1/executor"


def knock(path: str = "/v2/apps", token: str = "", **more: Any) -> Knock:
    headers = {"host": "m:1", **({"authorization": f"Bearer {token}"} if token else {})}
    return Knock(method="GET", path=path, headers=headers, **more)


def state() -> TrustState:
    made = TrustState(TrustConfig())
    made.tokens["ab12"] = RECORD
    made.nodes["bad"] = NodeRecord(name="bad", joined_at=0.0, revoked_at=1.0)
    return made


@pytest.fixture
def master() -> MasterGate:
    return MasterGate(state(), clock=lambda: 50.0)


async def test_a_master_lets_in_who_has_a_token_or_a_certificate(master: MasterGate) -> None:
    assert (await master.admit(knock(token=TOKEN.text))).name == "ci"
    basic = base64.b64encode(f"any:{TOKEN.text}".encode()).decode()
    by_password = Knock(method="GET", path="/v2/apps", headers={"authorization": f"Basic {basic}"})
    assert (await master.admit(by_password)).name == "ci"
    assert (await master.admit(knock(certificate=("master", "m2")))).kind is CallerKind.MASTER
    agent = await master.admit(knock("/corral/v1/agent/orders", certificate=("agent", "n1")))
    assert (agent.kind, agent.name) == (CallerKind.AGENT, "n1")
    assert (await master.admit(knock(token=TOKEN.text, certificate=("agent", "n1")))).name == "ci"
    assert await master.admit(knock("/health/live")) == ANYBODY


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (knock(), Unauthenticated, "say who asks"),
        (knock(token="nonsense"), Unauthenticated, "no token of corral"),
        (knock(token="corral_ab12_00"), Unauthenticated, "not known here"),
        (knock(certificate=("agent", "n1")), Forbidden, "node n1 may not ask"),
        (knock("/corral/v1/agent/orders", certificate=("agent", "bad")), Forbidden, "was revoked"),
        (knock(certificate=("authority", "x")), Unauthenticated, "say who asks"),
        (knock("/corral/v1/agent/orders", TOKEN.text), Forbidden, "for nodes that have joined"),
        (knock(token=TOKEN.text, secure=False), Invalid, "https://m:1/v2/apps"),
        (knock("/health/live", secure=False), Invalid, "this port speaks TLS"),
        (knock("/metrics"), Unauthenticated, "say who asks"),
    ],
)
async def test_a_master_turns_others_away_in_words(
    master: MasterGate, asked: Knock, kind: type[CorralError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        await master.admit(asked)


@pytest.mark.parametrize(
    ("method", "path", "credentials", "is_let_in"),
    [
        ("POST", "/corral/v1/scaling/shop/web/expand", "Bearer scaling-1-2", True),
        ("POST", "/corral/v1/scaling/shop/web/shrink", "bearer  scaling-1-2 ", True),
        ("POST", "/corral/v1/scaling/shop/web/metrics", "Bearer scaling-1-2", True),
        ("GET", "/corral/v1/scaling/shop/web", "Bearer scaling-1-2", True),
        ("GET", "/corral/v1/usage/shop/web", "Bearer scaling-1-2", True),
        ("PUT", "/corral/v1/scaling/shop/web", "Bearer scaling-1-2", False),
        ("DELETE", "/corral/v1/scaling/shop/web", "Bearer scaling-1-2", False),
        ("POST", "/corral/v1/usage/expand", "Bearer scaling-1-2", False),
        ("GET", "/v2/apps", "Bearer scaling-1-2", False),
        ("POST", "/corral/v1/scaling/shop/web/expand", "token=scaling-1-2", False),
        (
            "POST", "/corral/v1/scaling/shop/web/expand",
            "Basic " + base64.b64encode(b"any:scaling-1-2").decode(), False,
        ),
    ],
)  # fmt: skip
async def test_a_task_reaches_its_own_apps_scaling_alone(
    master: MasterGate, method: str, path: str, credentials: str, is_let_in: bool
) -> None:
    asked = Knock(method=method, path=path, headers={"authorization": credentials})
    if is_let_in:
        assert await master.admit(asked) == ANYBODY
    else:
        with pytest.raises(Unauthenticated):
            await master.admit(asked)


async def test_a_token_that_has_expired_opens_nothing() -> None:
    with pytest.raises(Unauthenticated, match="has expired"):
        await MasterGate(state(), clock=lambda: 100.0).admit(knock(token=TOKEN.text))


def test_a_challenge_names_the_realm_that_mesos_clients_know(master: MasterGate) -> None:
    assert master.challenge("/api/v1/scheduler") == 'Basic realm="mesos-master-scheduler"'
    assert master.challenge("/v2/apps") == 'Basic realm="mesos-master-readwrite"'
    assert AgentGate(EXECUTORS, Asked()).challenge(EXECUTOR_API) == 'Bearer realm="mesos-agent-executor"'


class Asked:
    """Stands for the master whom an agent asks."""

    def __init__(self) -> None:
        self.count = 0
        self.answer: Caller | CorralError = Caller(kind=CallerKind.TOKEN, name="ci")

    async def check(self, token: str) -> Caller:
        self.count += 1
        if isinstance(self.answer, CorralError):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        """Nothing is open."""


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_an_agent_takes_the_masters_word_for_a_while_and_longer_while_no_master_answers() -> None:
    asked, clock = Asked(), Hands()
    gate = AgentGate(EXECUTORS, asked, fresh_s=30, grace_s=600, clock=clock)
    with pytest.raises(Unauthenticated):
        await gate.admit(knock())
    for _ in range(3):
        assert (await gate.admit(knock(token=TOKEN.text))).name == "ci"
    assert asked.count == 1
    clock.now = 31.0
    asked.answer = Unavailable("no master answers")
    assert (await gate.admit(knock(token=TOKEN.text))).name == "ci"
    assert asked.count == 2
    clock.now = 700.0
    with pytest.raises(Unavailable):
        await gate.admit(knock(token=TOKEN.text))
    asked.answer = Caller(kind=CallerKind.TOKEN, name="ci")
    assert (await gate.admit(knock(token=TOKEN.text))).name == "ci"
    clock.now = 731.0
    asked.answer = Unauthenticated("revoked")
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await gate.admit(knock(token=TOKEN.text))
    asked.answer = Unavailable("no master answers")
    with pytest.raises(Unavailable):
        await gate.admit(knock(token=TOKEN.text))


async def test_a_token_that_no_master_knows_is_not_asked_about_when_it_is_none() -> None:
    asked = Asked()
    with pytest.raises(Unauthenticated, match="no token of corral"):
        await AgentGate(EXECUTORS, asked).admit(knock(token="x y"))
    assert asked.count == 0


async def test_an_executor_is_known_by_its_token_and_may_speak_plainly_from_its_own_node_alone() -> None:
    gate = AgentGate(EXECUTORS, Asked())
    token = EXECUTORS.make("f1", "e1", "c1")
    caller = await gate.admit(knock(EXECUTOR_API, token, secure=False, local=True))
    assert (caller.kind, caller.name, caller.claims) == (
        CallerKind.EXECUTOR, "e1", {"fid": "f1", "eid": "e1", "cid": "c1"},
    )  # fmt: skip
    assert (await gate.admit(knock(EXECUTOR_API, token))).name == "e1"
    for refused in (knock(EXECUTOR_API, local=True), knock(EXECUTOR_API, TOKEN.text), knock("/state", token)):
        with pytest.raises(Unauthenticated):
            await gate.admit(refused)
    with pytest.raises(Invalid, match="speaks TLS"):
        await gate.admit(knock(EXECUTOR_API, token, secure=False))
    with pytest.raises(Invalid, match="speaks TLS"):
        await gate.admit(knock("/state", token, secure=False, local=True))
    foreign = ExecutorTokens(b"z" * 32).make("f1", "e1", "c1")
    with pytest.raises(Unauthenticated, match="no token of an executor of this agent"):
        await gate.admit(knock(EXECUTOR_API, foreign))


def test_an_executor_speaks_for_itself_alone() -> None:
    call = Heartbeat(framework_id=FrameworkId("f1"), executor_id=ExecutorId("e1"))
    check_claims(ANYBODY, call)
    check_claims(EXECUTORS.read(EXECUTORS.make("f1", "e1", "c1")), call)
    for other in (("f2", "e1"), ("f1", "e2")):
        with pytest.raises(Forbidden, match="the token is of executor"):
            check_claims(EXECUTORS.read(EXECUTORS.make(*other, "c1")), call)


async def test_a_follower_guards_what_it_answers_itself_and_leaves_the_rest_to_the_leader() -> None:
    store = MemoryStore()
    await store.commit({"trust/tokens/ab12": encode_record(RECORD)})
    gate = FollowerGate(store, clock=lambda: 50.0)
    assert await gate.admit(knock("/v2/apps")) == ANYBODY
    for path in ("/metrics", "/corral/v1/process", "/corral/v1/process/renew/", "/corral/v1/masters"):
        assert (await gate.admit(knock(path, TOKEN.text))).name == "ci"
        for token in ("", "corral_ab12_00", "corral_zz_00"):
            with pytest.raises(Unauthenticated):
                await gate.admit(knock(path, token))
    with pytest.raises(Invalid):
        await gate.admit(knock("/v2/apps", secure=False))
