"""What is asked of the DNS and what it answers, by the bytes that a resolver sees."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, DNSRecord

from corral.discovery.dns import Foreign, answer, read_query, refusal
from corral.discovery.names import Zone, label, make_zone
from corral.discovery.registry import App, Port

Make = Callable[..., App]


def zone_of(*apps: App) -> Zone:
    return make_zone({app.id: app for app in apps})


def ask(zone: Zone, name: str, kind: str = "A", *, tcp: bool = False, edns: int = 0) -> Any:
    query = DNSRecord.question(name, kind)
    if edns:
        query.add_ar(EDNS0(udp_len=edns))
    read = read_query(query.pack())
    assert read is not None
    found = answer(zone, read, Random(1), ttl_s=7, tcp=tcp)
    return found if isinstance(found, Foreign) else DNSRecord.parse(found)


def addresses(reply: Any) -> list[str]:
    return sorted(str(rr.rdata) for rr in reply.rr)


@pytest.mark.parametrize(
    "name",
    [
        "web.shop.corral", "web.shop.any.corral", "WEB.Shop.Corral.", "web.shop.marathon.mesos",
        "web-shop.marathon.mesos", "web.shop.slave.marathon.mesos",
    ],
)  # fmt: skip
def test_an_app_is_found_by_its_names_whatever_their_letter_case(app: Make, name: str) -> None:
    reply = ask(zone_of(app()), name)
    assert addresses(reply) == ["10.0.0.1", "10.0.0.2"]
    assert reply.header.aa
    assert reply.rr[0].ttl == 7


def test_a_role_is_part_of_the_name_and_its_tree_turns_round(app: Make) -> None:
    zone = zone_of(app(role="ads/etl"))
    assert addresses(ask(zone, "web.shop.etl.ads.corral")) == ["10.0.0.1", "10.0.0.2"]
    assert ask(zone, "web.shop.ops.corral").header.rcode == 3


@pytest.mark.parametrize(
    "name",
    [
        "_http._web.shop._tcp.marathon.mesos", "_web.shop._tcp.marathon.mesos", "_web-shop._tcp.marathon.mesos",
        "_tcp.web.shop.corral", "_http._tcp.web.shop.any.corral",
    ],
)  # fmt: skip
def test_srv_records_name_port_and_place_and_bring_the_address(app: Make, name: str) -> None:
    reply = ask(zone_of(app(weight=40)), name, "SRV")
    assert [(rr.rdata.port, rr.rdata.weight) for rr in reply.rr] == [(31000, 40)] * 2
    told = {str(rr.rname): str(rr.rdata) for rr in reply.ar}
    assert sorted(told[str(rr.rdata.target)] for rr in reply.rr) == ["10.0.0.1", "10.0.0.2"]
    target = str(reply.rr[0].rdata.target)
    assert addresses(ask(zone_of(app()), target)) == [told[target]]


def test_only_instances_that_are_ready_are_found(app: Make) -> None:
    zone = zone_of(app(count=3, ready=1))
    assert addresses(ask(zone, "web.shop.corral")) == ["10.0.0.1"]
    assert len(ask(zone, "_tcp.web.shop.corral", "SRV").rr) == 1


def test_an_app_without_ready_instances_has_a_name_without_records(app: Make) -> None:
    reply = ask(zone_of(app(ready=0)), "web.shop.corral")
    assert (reply.header.rcode, reply.rr) == (0, [])
    assert reply.auth[0].rtype == QTYPE.SOA


def test_an_unknown_name_does_not_exist_and_the_soa_says_for_how_long(app: Make) -> None:
    reply = ask(zone_of(app()), "nothing.corral")
    assert reply.header.rcode == 3
    assert (str(reply.auth[0].rname), reply.auth[0].ttl) == ("corral.", 5)


@pytest.mark.parametrize("name", ["shop.corral", "marathon.mesos", "_tcp.marathon.mesos", "corral"])
def test_a_name_above_another_exists_and_has_no_address(app: Make, name: str) -> None:
    assert ask(zone_of(app()), name).header.rcode == 0


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT"])
def test_a_type_that_a_name_has_not_is_an_empty_answer(app: Make, kind: str) -> None:
    reply = ask(zone_of(app()), "web.shop.corral", kind)
    assert (reply.header.rcode, reply.rr, len(reply.auth)) == (0, [], 1)


def test_the_domain_itself_has_an_soa_and_a_name_server(app: Make) -> None:
    zone = zone_of(app())
    assert ask(zone, "corral", "SOA").rr[0].rtype == QTYPE.SOA
    assert str(ask(zone, "mesos", "NS").rr[0].rdata) == "ns.mesos."


def test_what_does_not_fit_is_cut_over_udp_and_whole_over_tcp(app: Make) -> None:
    zone = zone_of(app(count=200))
    plain = ask(zone, "web.shop.corral")
    assert plain.header.tc == 1
    assert len(plain.pack()) <= 512
    assert 0 < len(plain.rr) < 200
    larger = ask(zone, "web.shop.corral", edns=4096)
    assert len(plain.rr) < len(larger.rr) < 200
    assert len(larger.pack()) <= 1232
    whole = ask(zone, "web.shop.corral", tcp=True)
    assert (whole.header.tc, len(whole.rr)) == (0, 200)


def test_addresses_that_nobody_asked_for_go_first_when_room_is_short(app: Make) -> None:
    reply = ask(zone_of(app(count=5)), "_tcp.web.shop.corral", "SRV")
    assert (reply.header.tc, len(reply.rr), reply.ar) == (0, 5, [])


def test_edns_is_answered_with_edns_and_never_without_a_question_for_it(app: Make) -> None:
    zone = zone_of(app())
    assert [rr.rtype for rr in ask(zone, "web.shop.corral", edns=1232).ar] == [QTYPE.OPT]
    assert ask(zone, "web.shop.corral").ar == []


def test_a_version_of_edns_that_nobody_speaks_is_refused_by_its_code(app: Make) -> None:
    query = DNSRecord.question("web.shop.corral")
    query.add_ar(EDNS0(udp_len=1232, version=1))
    found = answer(zone_of(app()), query, Random(1), ttl_s=1, tcp=False)
    assert isinstance(found, bytes)
    reply = DNSRecord.parse(found)
    assert (reply.header.rcode, reply.ar[0].ttl >> 24) == (0, 1)


def test_a_foreign_name_is_left_to_others(app: Make) -> None:
    assert ask(zone_of(app()), "www.example.org") == Foreign("www.example.org")
    assert ask(zone_of(app()), "notcorral") == Foreign("notcorral")


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 11, b"\xff" * 40, b"\x00\x01\x01\x00\x00\x01" + b"\xc0" * 30])
def test_bytes_that_are_no_query_are_not_answered(data: bytes) -> None:
    assert read_query(data) is None


def test_an_answer_is_not_answered() -> None:
    assert read_query(refusal(DNSRecord.question("web.corral"), 5)) is None


def test_another_kind_of_request_is_refused_as_not_implemented(app: Make) -> None:
    query = DNSRecord.question("web.shop.corral")
    query.header.opcode = 2
    found = answer(zone_of(app()), query, Random(1), ttl_s=1, tcp=False)
    assert isinstance(found, bytes)
    assert DNSRecord.parse(found).header.rcode == 4


def test_addresses_come_in_a_new_order_each_time(app: Make) -> None:
    zone, random = zone_of(app(count=6)), Random(3)
    query = DNSRecord.question("web.shop.corral")
    seen = set()
    for _ in range(12):
        found = answer(zone, query, random, ttl_s=1, tcp=False)
        assert isinstance(found, bytes)
        seen.add(tuple(str(rr.rdata) for rr in DNSRecord.parse(found).rr))
    assert len(seen) > 6


def test_a_port_of_both_protocols_is_found_under_both(app: Make) -> None:
    zone = zone_of(app(ports=(Port(index=0, name="dns", protocol="udp,tcp"),)))
    for protocol in ("udp", "tcp"):
        assert len(ask(zone, f"_dns._{protocol}.web.shop.corral", "SRV").rr) == 2


def test_text_becomes_one_label_of_a_name() -> None:
    assert label("My_Port!") == "my-port"
    assert len(label("x" * 100)) == 63
    assert label("___") == ""


def test_ipv6_addresses_are_told_as_such(app: Make) -> None:
    one = app(count=1)
    from msgspec.structs import replace

    from corral.discovery.registry import Endpoint

    moved = replace(one.instances[0], endpoints=(Endpoint(address="fd00::1", port=80),))
    zone = zone_of(replace(one, instances=(moved,)))
    assert addresses(ask(zone, "web.shop.corral", "AAAA")) == ["fd00::1"]
    assert ask(zone, "web.shop.corral").rr == []
