"""Who is asking, and what they may ask for."""

import base64

import pytest

from corral.lib.errors import CorralError, Forbidden, Invalid
from corral.master.admit import as_caller
from corral.model.calls import Subscribe
from corral.model.framework import Capability, FrameworkInfo
from corral.net.access import Access, complete_url
from corral.net.auth import ANYBODY, RENEW_PROCESS_PATH, Caller, CallerKind, Token, read_token, read_token_text
from corral.net.stream import ORDERS_PATH
from corral.standalone.config import check_exposure, wants_tls
from corral.trust.join import split_target
from corral.trust.rights import CHECK_PATH, JOIN_PATH, TOKENS_PATH, check_right, is_open

FINGERPRINT = "ab" * 16


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, None),
        ({"authorization": ""}, None),
        ({"authorization": "Bearer corral_a_b"}, "corral_a_b"),
        ({"authorization": "bearer  corral_a_b "}, "corral_a_b"),
        ({"authorization": "token=corral_a_b"}, "corral_a_b"),
        (basic("marathon:corral_a_b"), "corral_a_b"),
        (basic(":corral_a_b"), "corral_a_b"),
        (basic("nobody"), ""),
    ],
)
def test_a_token_comes_as_bearer_or_as_a_password(headers: dict[str, str], token: str | None) -> None:
    assert read_token(headers) == token


@pytest.mark.parametrize("value", ["Digest x", "Basic ###", "Basic " + base64.b64encode(b"\xff\xff:x").decode()])
def test_other_credentials_are_refused_in_words(value: str) -> None:
    with pytest.raises(Invalid):
        read_token({"authorization": value})


def test_credentials_of_another_form_are_not_repeated() -> None:
    with pytest.raises(Invalid) as caught:
        read_token({"authorization": "secret=s3cret"})
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("token", [Token("ab12", "s3cret"), Token("ab12", "s3cret", FINGERPRINT)])
def test_a_token_reads_as_it_is_written(token: Token) -> None:
    assert read_token_text(token.text + "\n") == token


@pytest.mark.parametrize(
    "text", ["", "corral", "corral_a", "corral_a_b_c", "join_a_b", "other_a_b", "corral__b", "corral_a_b c"]
)
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_token_text(text)
    assert not text or f" {text} " not in caught.value.message


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("10.0.0.5", "https://10.0.0.5:4680"),
        ("m.example:99", "https://m.example:99"),
        ("[fd00::1]", "https://[fd00::1]:4680"),
        ("[fd00::1]:99", "https://[fd00::1]:99"),
        ("https://m.example:99/", "https://m.example:99"),
    ],
)
def test_a_node_joins_by_token_and_address(host: str, url: str) -> None:
    token = Token("ab", "cd", FINGERPRINT)
    assert split_target(f"{token.text}@{host}") == (token, [url])
    assert split_target(f"{token.text}@{host}, 10.9.9.9,") == (token, [url, "https://10.9.9.9:4680"])


@pytest.mark.parametrize(
    "target",
    ["", "10.0.0.5", "x@", "@host", "corral_a_b@host", f"join_a_b_{FINGERPRINT}@host:port",
     f"join_a_b_{FINGERPRINT}@http://host"],
)  # fmt: skip
def test_a_target_of_another_form_is_refused(target: str) -> None:
    with pytest.raises(Invalid):
        split_target(target)


AGENT = Caller(kind=CallerKind.AGENT, name="n1")
ADMIN = Caller(kind=CallerKind.TOKEN, name="op")
BOUND = Caller(kind=CallerKind.TOKEN, name="etl", roles=("ads",))
MASTER = Caller(kind=CallerKind.MASTER, name="m1")


@pytest.mark.parametrize(
    ("caller", "path"),
    [(AGENT, ORDERS_PATH), (AGENT, CHECK_PATH), (AGENT, "/redirect"), (AGENT, "/corral/v1/registry/watch"),
     (ADMIN, "/v2/apps"), (ADMIN, TOKENS_PATH), (BOUND, "/v2/apps"), (ADMIN, RENEW_PROCESS_PATH),
     (MASTER, TOKENS_PATH), (MASTER, CHECK_PATH)],
)  # fmt: skip
def test_callers_may_ask_for_what_is_theirs(caller: Caller, path: str) -> None:
    check_right(caller, path)


@pytest.mark.parametrize(
    ("caller", "path"),
    [(AGENT, "/v2/apps"), (AGENT, TOKENS_PATH), (ADMIN, ORDERS_PATH), (ADMIN, CHECK_PATH), (BOUND, TOKENS_PATH),
     (BOUND, TOKENS_PATH + "/ab"), (BOUND, RENEW_PROCESS_PATH), (AGENT, RENEW_PROCESS_PATH),
     (AGENT, "/api/v1/scheduler"),
     (Caller(kind=CallerKind.EXECUTOR, name="e"), "/v2/apps")],
)  # fmt: skip
def test_callers_may_not_ask_for_what_is_others(caller: Caller, path: str) -> None:
    with pytest.raises(Forbidden):
        check_right(caller, path)
    if caller.kind is CallerKind.TOKEN:
        with pytest.raises(Forbidden):
            check_right(caller, path + "/")


def test_only_unbound_callers_make_the_leader_go() -> None:
    check_right(ADMIN, "/v2/leader", "DELETE")
    check_right(BOUND, "/v2/leader", "GET")
    with pytest.raises(Forbidden, match="may not renew processes"):
        check_right(BOUND, "/v2/leader", "DELETE")


def test_only_what_says_nothing_is_open() -> None:
    assert all(is_open(path, open_metrics=True) for path in ("/metrics", "/metrics/prometheus"))
    assert not is_open("/metrics/prometheus")
    assert is_open("/health/live")
    assert is_open("/health/ready/")
    assert is_open(JOIN_PATH)
    assert not is_open("/metrics")
    assert is_open("/metrics", open_metrics=True)
    assert not is_open("/health/live/x")


def subscribe(principal: str | None = None, *roles: str) -> Subscribe:
    info = FrameworkInfo(
        user="u", name="f", principal=principal, roles=roles, capabilities=(Capability.MULTI_ROLE,) if roles else ()
    )
    return Subscribe(info=info)


def test_a_framework_gets_its_callers_name_as_principal() -> None:
    assert as_caller(subscribe(), BOUND_TO_ALL).info.principal == "etl"
    assert as_caller(subscribe("etl"), BOUND_TO_ALL).info.principal == "etl"
    assert as_caller(subscribe("any"), ANYBODY).info.principal == "any"


BOUND_TO_ALL = Caller(kind=CallerKind.TOKEN, name="etl")


@pytest.mark.parametrize(
    ("call", "kind"),
    [(subscribe("other"), Invalid), (subscribe(None, "ads/a", "batch"), Forbidden), (subscribe(None, "*"), Forbidden)],
)
def test_a_framework_of_another_principal_or_role_is_refused(call: Subscribe, kind: type[CorralError]) -> None:
    with pytest.raises(kind):
        as_caller(call, BOUND)


def test_a_bound_framework_may_have_roles_below_its_own() -> None:
    assert as_caller(subscribe(None, "ads", "ads/a"), BOUND).info.principal == "etl"


def test_no_token_goes_out_in_the_clear() -> None:
    access = Access(token="corral_a_b")
    with pytest.raises(Invalid, match="in the clear"):
        complete_url("http://10.0.0.5:4680", access)
    assert complete_url("http://127.0.0.1:4680", access) == "http://127.0.0.1:4680"
    assert complete_url("10.0.0.5:4680", Access(token="t", cacert="ca.pem")) == "https://10.0.0.5:4680"
    assert complete_url("//10.0.0.5:4680") == "http://10.0.0.5:4680"
    for wrong in ("ftp://x", "http://", "http://x:port", ""):
        with pytest.raises(Invalid):
            complete_url(wrong)


@pytest.mark.parametrize(
    ("host", "insecure", "tls", "wanted"),
    [("127.0.0.1", False, "auto", False), ("127.0.0.1", False, "on", True), ("10.0.0.5", False, "auto", True),
     ("0.0.0.0", False, "auto", True), ("10.0.0.5", True, "auto", False), ("10.0.0.5", True, "on", True),
     ("10.0.0.5", False, "off", False)],
)  # fmt: skip
def test_tls_is_on_where_others_can_reach_it(host: str, insecure: bool, tls: str, wanted: bool) -> None:
    assert wants_tls(host, insecure, tls) is wanted


def test_an_address_that_tls_guards_needs_no_warning() -> None:
    assert check_exposure("10.0.0.5", False, "master.listen", secure=True) is None
    with pytest.raises(Invalid, match="join first"):
        check_exposure("10.0.0.5", False, "agent.listen", remedy="let this node join first")
