"""What the daemons refuse to start with, and how they divide a node."""

import pytest

from corral.lib.errors import Invalid
from corral.model.flags import parse_resources
from corral.model.resources import describe
from corral.standalone.config import (
    Config,
    check_exposure,
    parse_etcd,
    parse_headroom,
    parse_listen,
    parse_store,
    read_config,
)
from corral.standalone.parts import describe_master, divide


def test_the_defaults_are_accepted() -> None:
    config, origins = read_config(None, [], {})
    assert config == Config()
    assert set(origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kernel.ping_s=-1", "kernel.ping_s is -1.0; it must be a number of seconds of 0 or more"),
        ("kernel.ping_s=nan", "kernel.ping_s is nan"),
        ("agent.kill_grace_s=inf", "agent.kill_grace_s is inf"),
        ("services.launch_timeout_s=-5", "services.launch_timeout_s is -5.0"),
        ("cron.slack_url=chat", "cron.slack_url is 'chat'; it must be an http or https URL"),
        ("cron.allow_origin=ui.example.org", "cron.allow_origin is 'ui.example.org'; it must be * or one such as"),
        ("kernel.ping_s=50", "one lost ping would make an agent unreachable"),
        ("kernel.headroom=cpus", "is not NAME:VALUE"),
        ("kernel.headroom=cpus:-1", "must be a finite number of 0 or more"),
        ("kernel.headroom=ports:[1-2]", "kernel.headroom has ports, which has no amount"),
        ("kernel.evictions_per_minute=-1", "kernel.evictions_per_minute is -1; it must be 0 to 1000000"),
        ("kernel.evictions_per_minute=many", "which is not int"),
        ("kernel.compiled=true", "kernel.compiled is 'true'; auto, yes and no are known"),
        ("agent.runtime=docker,rkt", "agent.runtime names 'rkt'"),
        ("agent.resources=cpus", "is not NAME:VALUE"),
        ("agent.attributes=rack", "is not NAME:VALUE"),
        ("agent.listen=4681", "agent.listen is '4681', not HOST:PORT"),
        ("master.listen=h:port", "master.listen is 'h:port', not HOST:PORT"),
        ("master.store=redis:x", "neither sqlite:PATH, memory: nor etcd://"),
        ("log.format=xml", "text and json are known"),
        ("log.level=all", "log.level is 'all'"),
    ],
)
def test_a_value_no_daemon_could_work_with_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_config(None, [text], {})
    assert message in refused.value.message


def test_the_headroom_is_resources_and_empty_is_none_of_its_own() -> None:
    assert parse_headroom("") is parse_headroom(" ") is None
    assert describe(parse_headroom("cpus:100;mem:10240") or ()) == "cpus 100, mem 10240"
    assert parse_headroom("cpus:0") == ()


def test_the_master_is_told_how_its_allocator_works() -> None:
    sets = ["kernel.headroom=cpus:2", "kernel.evictions_per_minute=5", "kernel.compiled=no", "kernel.ping_s=7"]
    told = describe_master(read_config(None, sets, {})[0], "127.0.0.1", 4680)
    assert (describe(told.headroom or ()), told.evictions_per_minute, told.compiled) == ("cpus 2", 5, "no")
    assert (told.ping_s, told.port, told.hostname) == (7.0, 4680, "127.0.0.1")
    default = describe_master(Config(), "127.0.0.1", 4680)
    assert (default.headroom, default.evictions_per_minute, default.compiled) == (None, 60, "auto")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:4680", ("127.0.0.1", 4680)),
        ("[::1]:0", ("::1", 0)),
        (":4680", ("0.0.0.0", 4680)),
    ],
)
def test_a_listening_address_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text, "master.listen") == expected


@pytest.mark.parametrize("text", ["", "4680", "host", "host:", "host:65536", "host:-1", "host:http"])
def test_what_is_no_listening_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="HOST:PORT"):
        parse_listen(text, "master.listen")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ("sqlite", "")),
        ("memory:", ("memory", "")),
        ("sqlite:/a/b.db", ("sqlite", "/a/b.db")),
        ("sqlite:///a/b.db", ("sqlite", "/a/b.db")),
    ],
)
def test_a_store_is_named_by_kind_and_path(url: str, expected: tuple[str, str]) -> None:
    assert parse_store(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite://",
        "memory:x",
        "/a/b.db",
        "etcd://",
        "etcd:h:1",
        "etcd://h:0",
        "etcd://h:x,i:1",
        "etcd://h,/p",
        "etcd://::1:2",
    ],
)
def test_a_store_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match=r"store .* (neither|names no|no HOST:PORT)"):
        parse_store(url)


@pytest.mark.parametrize(
    ("url", "addresses", "prefix"),
    [
        ("etcd://h", ("h:2379",), "/corral/"),
        ("etcd://h:1,i,[::1]:3,[::2]", ("h:1", "i:2379", "[::1]:3", "[::2]:2379"), "/corral/"),
        ("etcds://h/a/b/", ("h:2379",), "/a/b/"),
    ],
)
def test_an_etcd_store_names_members_and_a_prefix(url: str, addresses: tuple[str, ...], prefix: str) -> None:
    assert parse_etcd(url) == (addresses, prefix)
    assert parse_store(url) == ("etcd", url)


def test_no_password_is_taken_from_the_url_of_a_store() -> None:
    with pytest.raises(Invalid, match=r"store.user and store.password_file"):
        parse_store("etcd://corral:secret@h:1")


@pytest.mark.parametrize(
    "sets",
    [
        ["store.timeout_s=0"], ["store.max_txn_ops=1"], ["store.max_request_bytes=10"], ["store.key=k"],
        ["store.user=u"], ["store.password_file=f"],
    ],
)  # fmt: skip
def test_a_store_section_that_nothing_could_work_with_is_refused(sets: list[str]) -> None:
    with pytest.raises(Invalid, match=r"store\."):
        read_config(None, sets, {})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_needs_no_word(host: str) -> None:
    assert check_exposure(host, False, "master.listen") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "::", "node7"])
def test_any_other_address_needs_the_word_insecure_and_gets_a_warning(host: str) -> None:
    with pytest.raises(Invalid, match="--insecure"):
        check_exposure(host, False, "master.listen")
    assert "without authentication" in (check_exposure(host, True, "master.listen") or "")


def test_agents_of_one_node_share_what_was_detected_and_each_has_what_was_named() -> None:
    whole = parse_resources("cpus:4;mem:1000;ports:[31000-31009]")
    parts = [divide(whole, "mem:1000", index, 2) for index in range(2)]
    assert [describe(part) for part in parts] == [
        "cpus 2, mem 1000, ports 31000-31004",
        "cpus 2, mem 1000, ports 31005-31009",
    ]
    assert divide(whole, "", 0, 1) is whole
