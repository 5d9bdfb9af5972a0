"""Record writes per second through corral on a real etcd of this machine, beside the same etcd asked directly.

A loop is kept supplied with inputs, each of which persists one record of its own, as an agent's report or an app's
instance does; turns gather them while a commit is under way. Directly asked, the same member gets the same records one
by one from many clients at once, and in bare transactions of as many as it takes in a row.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from tests.bench.report import Measure
from tests.etcd_servers import Etcd

from corral.runtime.core import Effect, Persist, Reply, encode_record
from corral.runtime.loop import Loop
from corral.store.etcd import Settings, open_etcd, wire

BUDGET_PER_S = 10_000.0
CLIENTS = 64
IN_A_ROW = 127
KEYS = 20_000
AHEAD = 2_000


class Row(msgspec.Struct, frozen=True):
    """About what a record of an instance weighs."""

    id: int
    text: str = "x" * 180
    numbers: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)


class Write(msgspec.Struct, frozen=True):
    n: int


class Keeper:
    """Persists what it is told, and says when the last of it is durable."""

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Write(n=n):
                return [Persist(f"row/{n % KEYS:06}", Row(n))]
        command = getattr(input, "command", None)
        return [] if command is None else [Reply(input.ask, command)]

    def invariants(self) -> None: ...


class Nothing:
    def perform(self, effect: Any) -> None: ...
    def flush(self) -> None: ...


def measure(*, short: bool) -> list[Measure]:
    seconds, runs = (1.0, 1) if short else (4.0, 3)
    through, single, bare = [], [], []
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as directory:
        etcd = Etcd(Path(directory))
        try:
            etcd.start()
            for run in range(runs):
                settings = Settings(endpoints=etcd.endpoints, root=f"/run{run}/")
                through.append(asyncio.run(write_through_corral(settings, seconds)))
                single.append(asyncio.run(ask_directly(etcd, CLIENTS, 1, seconds)))
                bare.append(asyncio.run(ask_directly(etcd, 2, IN_A_ROW, seconds)))
        finally:
            etcd.stop()
    size = len(encode_record(Row(1)))
    what = f"records of {size} bytes, one etcd on this disk, every commit synced"
    return [
        Measure(
            name="etcd: record writes through corral", unit="/s", runs=tuple(through), budget=BUDGET_PER_S,
            at_least=True, note=what,
        ),
        Measure(name=f"etcd asked directly, record by record by {CLIENTS} clients", unit="/s", runs=tuple(single)),
        Measure(name=f"etcd asked directly, {IN_A_ROW} in a transaction by 2 clients", unit="/s", runs=tuple(bare)),
    ]  # fmt: skip


async def write_through_corral(settings: Settings, seconds: float) -> float:
    store = await open_etcd(settings)
    loop = Loop(Keeper(), Nothing(), store, prefix="bench/")
    running = asyncio.ensure_future(loop.run())
    await loop.ready.wait()
    began_at, told = time.perf_counter(), 0
    while time.perf_counter() - began_at < seconds:
        while loop.waiting < AHEAD:
            for _ in range(AHEAD // 4):
                told += 1
                loop.tell(Write(told))
        await asyncio.sleep(0.001)
    await loop.ask("all")
    took_s = time.perf_counter() - began_at
    loop.stop()
    await running
    await store.close()
    return told / took_s


async def ask_directly(etcd: Etcd, clients: int, at_once: int, seconds: float) -> float:
    """As many puts as it takes. Shapes: `at_once` more than 1 are one transaction."""
    done, ends_at = 0, time.perf_counter() + seconds
    began_at = time.perf_counter()

    async def work(client: int) -> None:
        nonlocal done
        n = client
        while time.perf_counter() < ends_at:
            rows = [(f"/direct/row/{(n + i) % KEYS:06}".encode(), encode_record(Row(n))) for i in range(at_once)]
            path = "/v3/kv/put" if at_once == 1 else "/v3/kv/txn"
            body = (
                {"key": rows[0][0], "value": rows[0][1]}
                if at_once == 1
                else {"success": [wire.put(key, value) for key, value in rows]}
            )
            async with session.post(etcd.endpoints[0] + path, data=wire.encode(body)) as answer:
                await answer.read()
                assert answer.status == 200
            done += at_once
            n += at_once * clients

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(client) for client in range(clients)))
    return done / (time.perf_counter() - began_at)
