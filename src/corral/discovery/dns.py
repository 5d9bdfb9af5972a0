"""One DNS query answered from a zone: bytes in, bytes out, or a foreign name that somebody else must be asked for.

Rules: what is too long for the asker is truncated, and he asks again over TCP; a name that does not exist is NXDOMAIN,
one without records of the asked type an empty answer, both with the SOA, whose last number says how long that may be
remembered. Addresses are told in a new order each time, so that clients that take the first one spread.
Source: RFC 1034, 1035, 2308, 2782, 6891.
"""

from ipaddress import ip_address
from random import Random
from typing import TypeVar

import msgspec
from dnslib import AAAA, CLASS, EDNS0, NS, QTYPE, RCODE, RR, SOA, SRV, A, DNSError, DNSHeader, DNSRecord

from corral.discovery.names import Zone

T = TypeVar("T")

MOST_UDP_BYTES = 1232
"""What is sent at most over UDP, whatever the asker takes: larger packets are split on the way and get lost."""
PLAIN_UDP_BYTES = 512
MOST_TCP_BYTES = 65535
MOST_RECORDS = 1000
NEGATIVE_TTL_S = 5
QUERY = 0
CLASS_ANY = 255


class Foreign(msgspec.Struct, frozen=True):
    """The name is in no domain of ours."""

    name: str


def read_query(data: bytes) -> DNSRecord | None:
    """None for what cannot be answered at all: no DNS, or an answer itself."""
    try:
        query = DNSRecord.parse(data)
    except (DNSError, ValueError, IndexError, UnicodeError):
        return None
    return None if query.header.qr else query


def answer(zone: Zone, query: DNSRecord, random: Random, *, ttl_s: int, tcp: bool, serial: int = 1) -> bytes | Foreign:
    """The answer's bytes. Units: `ttl_s` seconds that answers may be remembered."""
    if query.header.opcode != QUERY:
        return refusal(query, RCODE.NOTIMP)
    if len(query.questions) != 1:
        return refusal(query, RCODE.FORMERR)
    if any(rr.rtype == QTYPE.OPT and (rr.ttl >> 16) & 0xFF for rr in query.ar):
        return refusal(query, 16)  # BADVERS: a version of EDNS that nobody speaks yet
    question = query.q
    name = str(question.qname).rstrip(".").lower()
    domain = zone.domain_of(name)
    if domain is None:
        return Foreign(name)
    if question.qclass not in (CLASS.IN, CLASS_ANY):
        return refusal(query, RCODE.REFUSED)
    reply = _reply_to(query)
    _fill(reply, zone, name, domain, question.qtype, random, ttl_s, serial)
    return _pack(reply, query, tcp)


def refusal(query: DNSRecord, code: int) -> bytes:
    """An answer that says only that there is none. Shapes: `code` is an RCODE, up to 16."""
    reply = _reply_to(query)
    reply.header.aa = 0
    reply.header.rcode = code & 0xF
    for record in reply.ar:
        record.ttl |= (code >> 4) << 24
    return bytes(reply.pack())


def truncated(query: DNSRecord) -> bytes:
    """An answer that only sends the asker to TCP."""
    reply = _reply_to(query)
    reply.header.tc = 1
    return bytes(reply.pack())


def _reply_to(query: DNSRecord) -> DNSRecord:
    header = DNSHeader(id=query.header.id, qr=1, aa=1, ra=1, rd=query.header.rd, opcode=query.header.opcode)
    reply = DNSRecord(header, questions=list(query.questions))
    if any(rr.rtype == QTYPE.OPT for rr in query.ar):
        reply.add_ar(EDNS0(udp_len=MOST_UDP_BYTES))
    return reply


def _fill(
    reply: DNSRecord, zone: Zone, name: str, domain: str, kind: int, random: Random, ttl_s: int, serial: int
) -> None:
    every = kind == QTYPE.ANY
    owner = str(reply.q.qname)
    if name == domain and (every or kind in (QTYPE.SOA, QTYPE.NS)):
        if every or kind == QTYPE.SOA:
            reply.add_answer(_soa(domain, serial))
        if every or kind == QTYPE.NS:
            reply.add_answer(RR(owner, QTYPE.NS, rdata=NS(f"ns.{domain}."), ttl=ttl_s))
    if every or kind in (QTYPE.A, QTYPE.AAAA):
        for address in _shuffled(zone.addresses.get(name, ()), random):
            if (record := _address(owner, address, kind, ttl_s)) is not None:
                reply.add_answer(record)
    if every or kind == QTYPE.SRV:
        services = _shuffled(zone.services.get(name, ()), random)
        for service in services:
            data = SRV(0, service.weight, service.port, service.target + ".")
            reply.add_answer(RR(owner, QTYPE.SRV, rdata=data, ttl=ttl_s))
        for target in dict.fromkeys(s.target for s in services):
            for address in zone.addresses.get(target, ()):
                if (record := _address(target + ".", address, QTYPE.ANY, ttl_s)) is not None:
                    reply.add_ar(record)
    if not reply.rr:
        reply.header.rcode = RCODE.NOERROR if name in zone.names else RCODE.NXDOMAIN
        reply.add_auth(_soa(domain, serial))


def _shuffled(found: tuple[T, ...], random: Random) -> list[T]:
    return random.sample(found, min(len(found), MOST_RECORDS))


def _address(owner: str, address: str, kind: int, ttl_s: int) -> RR | None:
    version = ip_address(address).version
    if version == 4 and kind in (QTYPE.A, QTYPE.ANY):
        return RR(owner, QTYPE.A, rdata=A(address), ttl=ttl_s)
    if version == 6 and kind in (QTYPE.AAAA, QTYPE.ANY):
        return RR(owner, QTYPE.AAAA, rdata=AAAA(address), ttl=ttl_s)
    return None


def _soa(domain: str, serial: int) -> RR:
    times = (serial & 0xFFFFFFFF, 60, 60, 86400, NEGATIVE_TTL_S)
    return RR(f"{domain}.", QTYPE.SOA, rdata=SOA(f"ns.{domain}.", f"root.ns.{domain}.", times), ttl=NEGATIVE_TTL_S)


def most_bytes(query: DNSRecord) -> int:
    """What may be sent to this asker over UDP."""
    offered = max((rr.rclass for rr in query.ar if rr.rtype == QTYPE.OPT), default=PLAIN_UDP_BYTES)
    return max(PLAIN_UDP_BYTES, min(offered, MOST_UDP_BYTES))


def _pack(reply: DNSRecord, query: DNSRecord, tcp: bool) -> bytes:
    """The reply as it fits: first without what was only added for convenience, then cut and marked."""
    most = MOST_TCP_BYTES if tcp else most_bytes(query)
    data = bytes(reply.pack())
    if len(data) <= most:
        return data
    reply.ar = [record for record in reply.ar if record.rtype == QTYPE.OPT]
    data = bytes(reply.pack())
    if len(data) <= most:
        return data
    if not tcp:
        reply.header.tc = 1
    while reply.rr and len(data) > most:
        keep = min(len(reply.rr) - 1, len(reply.rr) * most // len(data))
        reply.rr = reply.rr[:keep]
        reply.set_header_qa()
        data = bytes(reply.pack())
    return data
