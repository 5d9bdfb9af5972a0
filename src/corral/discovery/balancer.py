"""`corral lb`: keeps HAProxy in step with the registry, tells the registry what is drained, measures traffic.

Each change goes to the running HAProxy by its runtime API when slots are enough to express it, else by a reload. What a
check refuses is brought home to its app, which is left out with the reason, and all others are served.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from corral.discovery.haproxy import Settings, TemplateError, blame, render
from corral.discovery.haproxy_process import HaproxyProcess
from corral.discovery.registry import App
from corral.discovery.runtime_api import ServerCount, count_old, count_servers, measure, set_servers, talk
from corral.discovery.services import Services, make_services
from corral.discovery.slots import Slot, after, commands, place, same_shape, slot_name
from corral.lib.errors import CorralError, Failed, Unavailable
from corral.lib.log import get_logger

log = get_logger("lb")

GATHER_S = 0.02
DRAIN_POLL_S = 0.1
TRAFFIC_S = 2.0
RETRY_S = 2.0
MOST_BLAMED = 50


class Source(Protocol):
    """Where the registry comes from and what is told back: a `RegistryFollower`."""

    @property
    def apps(self) -> Mapping[str, App]: ...
    @property
    def connection(self) -> str: ...
    async def post(self, path: str, body: Any) -> None: ...


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What of the registry is served. Shapes: as `make_services` takes them."""

    groups: tuple[str, ...] = ("external",)
    bind: str = "*"
    reserved: dict[int, str] = {}
    templates: bool = True


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Which measurements the registry is told, for apps that are scaled by them."""

    requests: bool = True
    queue: bool = True


TELL_ALL = Told()


class Balancer:
    """Shapes: `changed` has to be called when the registry is another one; `run` works until it is cancelled."""

    def __init__(
        self, source: Source, haproxy: HaproxyProcess, settings: Settings, choice: Choice, told: Told = TELL_ALL
    ) -> None:
        self._source = source
        self._haproxy = haproxy
        self._settings = settings
        self._choice = choice
        self._tells = told
        self._news = asyncio.Event()
        self._slots: dict[str, tuple[Slot, ...]] = {}
        self._services = Services()
        self._structure = ""
        self._blamed: dict[str, tuple[App, str]] = {}
        self._told: set[str] = set()
        self._closed: set[tuple[int, str, str]] = set()
        self._totals: dict[tuple[str, str], int] = {}
        self._measured_at = time.monotonic()
        self.traffic: dict[str, float] = {}
        self.queues: dict[str, float] = {}
        self.error = ""
        self.commands = 0
        self.ready = asyncio.Event()

    def changed(self, ids: frozenset[str] = frozenset()) -> None:
        self._news.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._drain())
            group.create_task(self._measure())

    # Keeping in step.

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(GATHER_S)
            self._news.clear()
            try:
                await self.update()
                self.error = ""
                self.ready.set()
            except (CorralError, OSError) as error:
                words = error.message if isinstance(error, CorralError) else str(error)
                if words != self.error:
                    log.error("balancer not in step", why=words)
                self.error = words
                asyncio.get_running_loop().call_later(RETRY_S, self._news.set)

    async def update(self) -> None:
        """Bring HAProxy in step with what the registry is now.

        Errors: `Failed` or `Unavailable` when HAProxy does not do it; what it served before it goes on serving.
        """
        while True:
            services, slots, text, structure = self._make()
            if structure == self._structure and same_shape(slots, self._slots):
                await self._set(slots)
                self._services = services
                return
            said = await self._haproxy.check(text)
            if not said:
                break
            self._blame(text, said)
        await self._haproxy.apply(text)
        self._services, self._slots, self._structure = services, slots, structure
        log.info("configuration taken", services=len(services.services), apps=len({s.app for s in services.services}))

    def render(self) -> str:
        """The configuration as it would be now."""
        return self._make()[2]

    def _make(self) -> tuple[Services, dict[str, tuple[Slot, ...]], str, str]:
        apps = self._source.apps
        self._blamed = {key: (app, why) for key, (app, why) in self._blamed.items() if _same(apps.get(key), app)}
        without = {key: why for key, (_, why) in self._blamed.items()}
        while True:
            choice = self._choice
            services = make_services(
                apps, choice.groups, bind=choice.bind, reserved=choice.reserved, templates=choice.templates,
                without=without,
            )  # fmt: skip
            slots = place(services.services, self._slots)
            try:
                text = render(services.services, slots, self._settings)
                structure = render(services.services, {s.name: () for s in services.services}, self._settings)
            except TemplateError as error:
                self._leave_out(error.app, error.message)
                without[error.app] = error.message
                continue
            self._say_errors(services)
            return services, slots, text, structure

    def _say_errors(self, services: Services) -> None:
        for app_id, why in services.errors.items():
            if self._services.errors.get(app_id) != why:
                log.warning("app not served", app=app_id, why=why)

    def _blame(self, text: str, said: str) -> None:
        """Leave out the apps that the check's errors come from. Errors: `Failed` when they come from none."""
        found = {app: why for app, why in blame(text, said).items() if app and app in self._source.apps}
        if not found or len(self._blamed) > MOST_BLAMED:
            raise Failed(f"HAProxy refuses the configuration, the old one serves: {' '.join(said.split())[:1000]}")
        for app_id, why in found.items():
            self._leave_out(app_id, f"HAProxy refuses what it asks for: {why}")

    def _leave_out(self, app_id: str, why: str) -> None:
        self._blamed[app_id] = (self._source.apps[app_id], why)

    async def _set(self, slots: dict[str, tuple[Slot, ...]]) -> None:
        said = commands(self._slots, slots)
        if said:
            try:
                await set_servers(self._haproxy.socket, said)
            except CorralError:
                self._structure = ""  # what it has now is not known: a reload brings it back in step
                raise
            self.commands += len(said)
        self._slots = after(self._slots, slots)

    # Draining.

    async def _drain(self) -> None:
        while True:
            await asyncio.sleep(DRAIN_POLL_S)
            leaving = {
                (backend, slot_name(index)): slot
                for backend, slots in self._slots.items()
                for index, slot in enumerate(slots)
                if slot.leaving and slot.instance
            }
            there = {i.id for app in self._source.apps.values() for i in app.instances if i.draining}
            self._told &= there
            if not leaving:
                self._closed.clear()
            if not there:
                continue
            try:
                done = await self._drained(leaving, there)
                if done:
                    body = {"balancer": self._source.connection, "instances": sorted(done)}
                    await self._source.post("/corral/v1/registry/drained", body)
                    self._told |= done
            except CorralError as error:
                log.debug("drain not told", why=error.message)

    async def _drained(self, leaving: Mapping[tuple[str, str], Slot], there: set[str]) -> set[str]:
        """Instances that nothing is sent to any more, of those that are to end and were not told yet."""
        busy: set[str] = {slot.instance for slot in leaving.values() if slot.up}
        waiting = {slot.instance for slot in leaving.values()} - self._told
        if self._news.is_set():
            return set()  # what is leaving may not have been taken out yet
        if waiting:
            for count in await self._count(leaving):
                slot = leaving.get((count.backend, count.server))
                if slot is not None and count.current:
                    busy.add(slot.instance)
        served = {slot.instance for slots in self._slots.values() for slot in slots if slot.up}
        return there - busy - served - self._told

    async def _count(self, leaving: Mapping[tuple[str, str], Slot]) -> list[ServerCount]:
        found = await count_servers(self._haproxy.socket)
        for pid in await self._haproxy.old_workers():
            try:
                # Its clients may have one more request each, which must not go to what is leaving either.
                for key in leaving:
                    if (pid, *key) not in self._closed:
                        await talk(self._haproxy.master, f"@!{pid} set server {key[0]}/{key[1]} state maint")
                        self._closed.add((pid, *key))
                found += await count_old(self._haproxy.master, pid)
            except Unavailable:
                continue  # it has just ended
        return found

    # Measuring.

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(TRAFFIC_S)
            if not self._structure:
                continue
            try:
                counts, waiting = await measure(self._haproxy.socket)
                self._take_counts(counts)
                self.queues = self._share_out(waiting)
                await self._tell()
            except CorralError as error:
                log.debug("traffic not told", why=error.message)

    async def _tell(self) -> None:
        if not self._tells.requests and not self._tells.queue:
            return
        body = {
            "balancer": self._source.connection,
            "apps": self.traffic if self._tells.requests else {},
            "queues": self.queues if self._tells.queue else {},
        }
        await self._source.post("/corral/v1/registry/traffic", body)

    def _share_out(self, waiting: Mapping[str, int]) -> dict[str, float]:
        """What waits, by app; apps that share a backend have equal parts in its queue."""
        found: dict[str, float] = {}
        for service in self._services.services:
            for app in service.apps:
                share = waiting.get(service.name, 0) / len(service.apps)
                found[app] = round(found.get(app, 0.0) + share, 3)
        return found

    def _take_counts(self, counts: list[ServerCount]) -> None:
        now = time.monotonic()
        passed_s = max(now - self._measured_at, 0.001)
        rates: dict[str, float] = {app: 0.0 for s in self._services.services for app in s.apps}
        totals: dict[tuple[str, str], int] = {}
        owners = {
            (backend, slot_name(index)): slot.app
            for backend, slots in self._slots.items()
            for index, slot in enumerate(slots)
            if slot.app
        }
        for count in counts:
            key = (count.backend, count.server)
            totals[key] = count.total
            before = self._totals.get(key, 0)
            # A new worker counts from nothing.
            since = count.total - before if count.total >= before else count.total
            if key in owners:
                rates[owners[key]] = rates.get(owners[key], 0.0) + since / passed_s
        self._totals, self._measured_at = totals, now
        self.traffic = {app: round(rate, 3) for app, rate in rates.items()}

    def view(self) -> dict[str, Any]:
        """What it does, for people and programs."""
        return {
            "error": self.error or None,
            "reloads": self._haproxy.reloads,
            "commands": self.commands,
            "services": [
                {
                    "name": service.name,
                    "app": service.app,
                    "port": service.port,
                    "mode": str(service.mode),
                    "hosts": list(service.hosts),
                    "path": service.path or None,
                    "servers": [
                        {"instance": slot.instance, "address": f"{slot.address}:{slot.port}", "weight": slot.weight,
                         "up": slot.up, "leaving": slot.leaving}
                        for slot in self._slots.get(service.name, ()) if slot.instance
                    ],
                }
                for service in self._services.services
            ],
            "refused": self._services.errors,
            "ignored": {app: list(labels) for app, labels in self._services.ignored.items()},
            "traffic": self.traffic,
            "queues": self.queues,
        }  # fmt: skip


def _same(one: App | None, other: App) -> bool:
    """Whether the app still asks for the same."""
    return one is not None and (one.labels, one.ports, one.checks) == (other.labels, other.ports, other.checks)
