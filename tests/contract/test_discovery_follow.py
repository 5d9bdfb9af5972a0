"""The registry followed over HTTP, answered by DNS over real sockets, published as keys, made into files."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from dnslib import DNSRecord

from corral.discovery.dns_server import DnsServer, read_resolvers
from corral.discovery.etcd_keys import KeyFollower
from corral.discovery.follow import RegistryFollower
from corral.discovery.publish import Publisher
from corral.discovery.registry import App, Change, Endpoint, Instance, Port
from corral.discovery.template_file import Target, TemplateFile, read_mode
from corral.frameworks.services.discovery_spec import GetRegistry, WatchBalancer
from corral.frameworks.services.registry_routes import registry_routes
from corral.lib.errors import Failed, Invalid
from corral.net.server import Server, bind
from corral.sdk.feed import Feed
from corral.store.memory import MemoryStore


def web(*numbers: int) -> App:
    instances = tuple(
        Instance(
            id=f"web.instance-{n}", node_ip=f"10.0.0.{n}", endpoints=(Endpoint(address=f"10.0.0.{n}", port=80),),
            state="Running", ready=True,
        )
        for n in numbers
    )  # fmt: skip
    return App(id="/web", ports=(Port(index=0, name="http"),), instances=instances)


class Master:
    """The registry's front door over a core that a test writes."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.apps: dict[str, App] = {}
        self.balancers: dict[str, bool] = {}
        self.feed = Feed()
        bound = bind(*address)
        self.address = bound.getsockname()[:2]
        self.server = Server(registry_routes(self._ask, self.feed), bound)
        self.work = asyncio.ensure_future(self.server.run())

    async def _ask(self, command: Any) -> Any:
        match command:
            case GetRegistry(apps=named):
                found = [a for key, a in sorted(self.apps.items()) if named is None or key in named]
                return msgspec.to_builtins(found)
            case WatchBalancer(name=name, present=present):
                self.balancers[name] = present
        return None

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def put(self, app: App) -> None:
        self.apps[app.id] = app
        self.tell(app.id)

    def remove(self, app_id: str) -> None:
        del self.apps[app_id]
        self.tell(app_id)

    def tell(self, app_id: str) -> None:
        self.feed.publish("registry_changed", {"appId": app_id})

    async def stop(self) -> None:
        self.server.stop()
        await asyncio.wait([self.work])


async def until(found: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not found():
            await asyncio.sleep(0.01)


@pytest.fixture
async def master() -> AsyncIterator[Master]:
    made = Master()
    yield made
    await made.stop()


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Any], None]]:
    """Work that ends with the test."""
    tasks: list[asyncio.Future[Any]] = []
    yield lambda work: tasks.append(asyncio.ensure_future(work))
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def test_the_registry_is_followed_through_changes_and_a_new_master(
    master: Master, running: Callable[[Any], None], tmp_path: Path
) -> None:
    master.put(web(1))
    keep = tmp_path / "registry.json"
    follower = RegistryFollower([master.url], lambda ids: None, Random(1), keep=keep, balancer="lb", groups=("g",))
    running(follower.run())
    await until(lambda: follower.apps.get("/web") == web(1))
    assert master.balancers == {follower.connection: True}
    master.put(web(1, 2))
    await until(lambda: follower.apps["/web"] == web(1, 2))
    await master.stop()
    await until(lambda: not follower.synced.is_set())
    assert follower.apps["/web"] == web(1, 2)
    again = Master(master.address)
    again.put(web(3))
    await until(lambda: follower.apps.get("/web") == web(3))
    again.remove("/web")
    await until(lambda: follower.apps == {})
    again.put(web(4))
    await until(lambda: keep.exists() and b"10.0.0.4" in keep.read_bytes())
    await again.stop()
    later = RegistryFollower([again.url], lambda ids: None, Random(1), keep=keep)
    running(later.run())
    await until(lambda: later.apps.get("/web") == web(4))


async def test_a_balancer_that_leaves_is_known_to_have_left(master: Master) -> None:
    follower = RegistryFollower([master.url], lambda ids: None, Random(1), balancer="lb", groups=("g",))
    work = asyncio.ensure_future(follower.run())
    await until(lambda: True in master.balancers.values())
    work.cancel()
    await until(lambda: True not in master.balancers.values())


def ask(address: tuple[str, int], name: str, kind: str = "A", *, tcp: bool = False) -> Any:
    return DNSRecord.parse(DNSRecord.question(name, kind).send(*address, tcp=tcp, timeout=3))


async def test_dns_answers_over_udp_and_tcp_from_the_last_known_state(running: Callable[[Any], None]) -> None:
    apps = {"/web": web(*range(1, 100))}
    server = DnsServer(
        lambda: apps, Random(1), listen=("127.0.0.1", 0), corral="corral", mesos="mesos", ttl_s=3
    )  # fmt: skip
    running(server.run())
    await server.ready.wait()
    server.changed()
    await until(lambda: server.zone.addresses)
    cut = await asyncio.to_thread(ask, server.address, "web.corral")
    assert cut.header.tc == 1
    whole = await asyncio.to_thread(ask, server.address, "web.corral", tcp=True)
    assert len(whole.rr) == 99
    refused = await asyncio.to_thread(ask, server.address, "www.example.org")
    assert refused.header.rcode == 5


async def test_dns_hands_foreign_names_on_and_says_so_when_nobody_answers(running: Callable[[Any], None]) -> None:
    behind = DnsServer(
        lambda: {"/www": App(id="/www", instances=(Instance(id="i", node_ip="9.9.9.9", ready=True, state="Running"),))},
        Random(1), listen=("127.0.0.1", 0), corral="example.org", mesos="", ttl_s=3,
    )  # fmt: skip
    running(behind.run())
    await behind.ready.wait()
    behind.changed()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        front = DnsServer(
            dict, Random(1), listen=("127.0.0.1", 0), corral="corral", mesos="mesos", ttl_s=3,
            forward=[("127.0.0.1", 1), behind.address],
        )  # fmt: skip
        running(front.run())
        await front.ready.wait()
        await until(lambda: behind.zone.addresses)
        for tcp in (False, True):
            found = await asyncio.to_thread(ask, front.address, "www.example.org", tcp=tcp)
            assert [str(rr.rdata) for rr in found.rr] == ["9.9.9.9"]
        lonely = DnsServer(
            dict, Random(1), listen=("127.0.0.1", 0), corral="corral", mesos="mesos", ttl_s=3,
            forward=[("127.0.0.1", 1)],
        )  # fmt: skip
        running(lonely.run())
        await lonely.ready.wait()
        failed = await asyncio.to_thread(ask, lonely.address, "www.example.org")
        assert failed.header.rcode == 2


async def test_an_address_that_is_taken_is_an_error_that_names_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        server = DnsServer(
            dict, Random(1), listen=taken.getsockname(), corral="corral", mesos="", ttl_s=1
        )  # fmt: skip
        with pytest.raises(Invalid, match="cannot be listened on"):
            await server.run()


def test_the_nodes_resolvers_are_asked_except_this_server_itself(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("search x\nnameserver 127.0.0.1\nnameserver 10.0.0.2\n")
    found = read_resolvers(("system", "10.0.0.3:5353", "fd00::1", "[fd00::2]:54"), own=("127.0.0.1", 53), file=file)
    assert found == [("10.0.0.2", 53), ("10.0.0.3", 5353), ("fd00::1", 53), ("fd00::2", 54)]
    with pytest.raises(Invalid, match=r"10\.0\.0\.1:dns"):
        read_resolvers(("10.0.0.1:dns",), own=("", 0))


async def test_keys_follow_the_registry_and_what_is_missing_is_put_right(running: Callable[[Any], None]) -> None:
    store = MemoryStore()
    apps = {"/web": web(1, 2)}
    known = asyncio.Event()
    known.set()

    async def open_store() -> MemoryStore:
        return store

    async def keys() -> dict[str, bytes]:
        return {r.key: r.value for r in await store.list("services/")}

    publisher = Publisher(lambda: apps, known, open_store, about="", ttl_s=0.9)
    running(publisher.run())
    await publisher.ready.wait()
    assert await keys() == {"services/web/1": b"10.0.0.1:80", "services/web/2": b"10.0.0.2:80"}
    await store.commit({"services/foreign/1": b"x", "services/web/1": None})
    apps["/web"] = web(1, 3)
    publisher.changed()

    async with asyncio.timeout(5):
        while await keys() != {
            "services/web/1": b"10.0.0.1:80", "services/web/3": b"10.0.0.3:80", "services/foreign/1": b"x",
        }:  # fmt: skip
            await asyncio.sleep(0.02)


async def test_keys_are_followed_for_templates(running: Callable[[Any], None]) -> None:
    store = MemoryStore()
    await store.commit({"a/1": b"x", "b/1": b"no"})

    async def open_store() -> MemoryStore:
        return store

    follower = KeyFollower(open_store, ["/a"], lambda: None)
    running(follower.run())
    await until(lambda: follower.keys == {"/a/1": "x"})
    await asyncio.sleep(0.05)
    await store.commit({"a/2": b"y", "a/1": None})
    await until(lambda: follower.keys == {"/a/2": "y"})


async def test_a_file_is_written_only_when_it_differs_and_then_reloaded(tmp_path: Path) -> None:
    dest, told = tmp_path / "out.cfg", tmp_path / "told"
    text = ["one"]
    file = TemplateFile(Target(dest=dest, reload=f"echo x >> {told}", check="grep -q one {src}"), lambda: text[0])
    assert await file.update() is True
    dest.chmod(0o600)
    assert await file.update() is False
    text[0] = "one two"
    assert await file.update() is True
    assert (dest.read_text(), told.read_text(), dest.stat().st_mode & 0o777) == ("one two", "x\nx\n", 0o600)
    text[0] = "three"
    with pytest.raises(Failed, match="check command ended with code 1"):
        await file.update()
    assert dest.read_text() == "one two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.cfg", "told"]


async def test_a_reload_that_fails_is_tried_again_though_the_file_is_right(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    file = TemplateFile(Target(dest=tmp_path / "out", reload=f"test -e {flag}"), lambda: "x")
    with pytest.raises(Failed, match="reload command"):
        await file.update()
    flag.touch()
    assert await file.update() is False
    flag.unlink()
    assert await file.update() is False


def test_a_mode_is_octal() -> None:
    assert read_mode("0640") == 0o640
    assert read_mode("") is None
    with pytest.raises(Invalid, match="octal"):
        read_mode("rw")


def test_an_empty_line_is_a_sign_of_life() -> None:
    assert msgspec.json.decode(b"{}", type=Change) == Change()
