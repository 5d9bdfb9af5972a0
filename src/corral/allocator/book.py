"""What is where: agents and what tasks and offers take from them, in words, with the engine kept in step.

Changes are noted and carried out together before the next decision, so that a task costs no call of its own. Only
plain resources count here: neither reserved nor revocable ones, nor volumes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat

import msgspec

from corral.allocator.bundles import PORTS, amounts_of
from corral.allocator.engine import AGENT, Engine, Held, Rule, Tally
from corral.allocator.engine.catalog import MOST_RULES
from corral.allocator.entries import AgentEntry, HoldEntry, devices_of, has_ranges, mask_of, within
from corral.allocator.view import AgentView, Hold, HoldKind
from corral.lib.errors import Conflict, NotFound
from corral.model.ids import AgentId
from corral.model.resources import (
    PLAIN,
    Resources,
)

RUNTIME = "@runtime:"
"""The field, by the runtime's name, that every agent with that runtime has."""


class Book:
    """Shapes: a tally's tag may name several, parted by line ends; whoever carries any of them counts once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.agents: dict[AgentId, AgentEntry] = {}
        self.reserving: dict[AgentId, AgentEntry] = {}
        """Those of which something is reserved."""
        self.rows: dict[int, AgentEntry] = {}
        self.holds: dict[str, HoldEntry] = {}
        self._tagged: dict[str, dict[str, HoldEntry]] = {}
        self._offers: dict[int, dict[str, HoldEntry]] = {}
        self._revocable: dict[str, HoldEntry] = {}
        self._loans: dict[str, HoldEntry] = {}
        self._borrowed: dict[str, HoldEntry] = {}
        self._tasks: dict[str, dict[int, dict[str, HoldEntry]]] = {}
        self._noted: list[tuple[HoldEntry, int]] = []
        self._watched: dict[str, dict[Tally, None]] = {}
        self._port_tallies: dict[int, Tally] = {}
        self._ports_taken: set[tuple[int, int]] = set()
        self._dirty: set[int] = set()
        self.changes = 0

    # Agents.

    def set_agent(self, view: AgentView) -> None:
        """Take an agent, or what is new about it."""
        self.changes += 1
        entry = self.agents.get(view.id)
        if entry is None:
            eligible = not view.ineligible
            row = self.engine.add_node(self._total(view), view.hostname, _attributes(view), eligible=eligible)
            entry = self.agents[view.id] = self.rows[row] = AgentEntry(view, row)
        else:
            if _node(entry.view) != _node(view):
                self._change_node(entry, view)
            self.engine.set_eligible(entry.row, not view.ineligible)
        entry.describe(view)
        if any(each.identity.reservations for each in view.total):
            self.reserving[view.id] = entry
        else:
            self.reserving.pop(view.id, None)
        self._dirty.add(entry.row)

    def _change_node(self, entry: AgentEntry, view: AgentView) -> None:
        self.flush()
        moved = list(entry.holds.values())
        self._count(moved, -1)
        self.engine.change_node(entry.row, self._total(view), view.hostname, _attributes(view))
        self._count(moved, 1)
        self._recount_ports(moved, view)

    def _total(self, view: AgentView) -> dict[str, int]:
        return {name: n for name, n in amounts_of(view.total).items() if name in self.engine.resources}

    def _recount_ports(self, entries: Iterable[HoldEntry], view: AgentView) -> None:
        """Let the engine count of held ports those that the agent has."""
        for each in entries:
            resources = each.hold.resources
            held = each.held._replace(amounts=self._counted(resources, amounts_of(resources), view))
            if held != each.held:
                self.engine.hold([each.held, held], [-1, 1])
                each.held = held

    def _counted(self, resources: Resources, amounts: Mapping[str, int], view: AgentView) -> tuple[int, ...]:
        """What the engine counts for a hold: of ports only those that its agent has."""
        if PORTS in amounts and not has_ranges(view.total, resources):
            amounts = amounts_of(within(resources, view.total))
        return tuple(map(amounts.get, self.engine.resources, repeat(0)))

    def remove_agent(self, agent_id: AgentId) -> None:
        """Forget an agent with all that is held there; nothing when it is not known."""
        entry = self.agents.get(agent_id)
        if entry is None:
            return
        self.changes += 1
        for key in list(entry.holds):
            self.release(key)
        self.flush()
        for port in self._port_tallies:
            self._set_port(port, entry.row, False)
        self._dirty.discard(entry.row)
        self.engine.remove_node(entry.row)
        self.reserving.pop(agent_id, None)
        del self.agents[agent_id], self.rows[entry.row]

    # Holds.

    def check_new(self, agent_id: AgentId, holds: Sequence[Hold]) -> None:
        """Errors: `Conflict` when one of these keys is taken, `NotFound` when the agent is not known."""
        keys = [each.key for each in holds]
        if len(set(keys)) < len(keys) or not self.holds.keys().isdisjoint(keys):
            key = next(key for key in keys if key in self.holds or keys.count(key) > 1)
            raise Conflict(f"hold {key} is there already; release it before")
        if holds and agent_id not in self.agents:
            raise NotFound(f"hold {holds[0].key} is on agent {agent_id}, which is not known; tell of the agent first")

    def hold_all(
        self, agent_id: AgentId, holds: Sequence[Hold], leaves: Sequence[int], amounts: Sequence[Mapping[str, int]]
    ) -> list[HoldEntry]:
        """Count holds on one agent that have been checked. Shapes: claimants' rows, and what each comes to."""
        if not holds:
            return []
        agent = self.agents[agent_id]
        entries = []
        for hold, leaf, found in zip(holds, leaves, amounts, strict=True):
            counted = self._counted(hold.resources, found, agent.view)
            entry = HoldEntry(hold, agent, Held(leaf, agent.row, counted, hold.revocable, mask_of(hold.devices)))
            self._list(entry)
            self._noted.append((entry, 1))
            entries.append(entry)
        agent.take_all([each.resources for each in holds])
        self._dirty.add(agent.row)
        return entries

    def grant(self, hold: Hold, leaf: int, agent: AgentEntry, amounts: Mapping[str, int]) -> None:
        """Count a coarse grant under a key that nobody has, of all or part of what an agent has free.

        Shapes: `amounts` is what it comes to.
        """
        counted = tuple(map(amounts.get, self.engine.resources, repeat(0)))
        entry = HoldEntry(hold, agent, Held(leaf, agent.row, counted, hold.revocable))
        self.holds[hold.key] = agent.holds[hold.key] = entry
        agent.take(hold.resources, 1)
        self._dirty.add(agent.row)
        self._noted.append((entry, 1))

    def adopt(self, hold: Hold, leaf: int, agent: AgentEntry, devices: int, fed: Sequence[Tally]) -> HoldEntry:
        """Keep a hold that the engine counts already, as it placed it itself; `fed` is where its class counts it."""
        amounts = amounts_of(hold.resources)
        counted = tuple(amounts.get(name, 0) for name in self.engine.resources)
        entry = HoldEntry(hold, agent, Held(leaf, agent.row, counted, hold.revocable, devices))
        entry.counted = True
        self._keep(entry)
        if len(fed) >= MOST_RULES:
            more = [each for each in self.watching(entry.tags) if each not in fed]
            self.engine.count(more, [agent.row] * len(more), [1] * len(more))
        return entry

    def replace(self, key: str, hold: Hold) -> HoldEntry | None:
        """Let another hold of the same resources and standing take the place of one; None when they differ."""
        old = self.holds.get(key)
        if old is None or (hold.key in self.holds and hold.key != key):
            return None
        before = old.hold
        equal = before.resources == hold.resources
        same = (
            before.agent_id == hold.agent_id
            and before.role == hold.role
            and before.framework_id == hold.framework_id
            and before.priority == hold.priority
            and before.revocable == hold.revocable
            and before.group == hold.group
            and before.tags == hold.tags
            and (equal or amounts_of(before.resources) == amounts_of(hold.resources))
            and (not hold.devices or hold.devices == devices_of(old.held.devices))
        )
        if not same:
            return None
        self._unlist(old)
        if not equal:
            old.agent.take(before.resources, -1)
            old.agent.take(hold.resources, 1)
            self._dirty.add(old.agent.row)
        old.hold = hold
        self._list(old)
        return old

    def release(self, key: str) -> HoldEntry | None:
        """Give back what is held; None when nothing is held by that key."""
        entry = self.holds.get(key)
        if entry is None:
            return None
        self._drop(entry)
        self._noted.append((entry, -1))
        return entry

    def mark(self, key: str) -> None:
        """Note that a hold is on its way out."""
        entry = self.holds[key]
        entry.hold = msgspec.structs.replace(entry.hold, leaving=True)

    def tagged(self, tag: str) -> Iterable[HoldEntry]:
        """What carries a tag."""
        return self._tagged.get(tag, {}).values()

    def offers(self) -> dict[int, list[HoldEntry]]:
        """The coarse offers that are out, by the row of their agent."""
        return {row: list(there.values()) for row, there in self._offers.items()}

    def evictable(self, role: str, priority: int | None) -> Iterator[HoldEntry]:
        """Tasks that may have to go: revocable ones, and those of the role below a priority, None for none of these."""
        yield from self._revocable.values()
        if priority is not None:
            for there, tasks in self._tasks.get(role, {}).items():
                if there < priority:
                    yield from (each for each in tasks.values() if not each.hold.revocable)

    def loans(self) -> list[HoldEntry]:
        """Tasks and offers on what is reserved for others."""
        return list(self._loans.values())

    def borrowed(self) -> list[HoldEntry]:
        """Tasks and offers on what is kept for guarantees, without those of wants."""
        return list(self._borrowed.values())

    def flush(self) -> None:
        """Let the engine know what was held and released since the last time."""
        self._forget_gone()
        noted, self._noted = self._noted, []
        # What came and went in between never happened.
        gone = {id(entry) for entry, sign in noted if sign < 0 and not entry.counted}
        changes = [(entry, sign) for entry, sign in noted if id(entry) not in gone]
        if changes:
            masks = self.engine.hold([entry.held for entry, _ in changes], [sign for _, sign in changes])
            for (entry, sign), mask in zip(changes, masks, strict=True):
                if sign > 0:
                    entry.held = entry.held._replace(devices=mask)
                    entry.counted = True
            self._count([entry for entry, sign in changes if sign < 0], -1)
            self._count([entry for entry, sign in changes if sign > 0], 1)

    @contextmanager
    def without(self, entries: Sequence[HoldEntry]) -> Iterator[None]:
        """As if these holds had been given back, for a question in between."""
        self._lift(entries, -1)
        yield
        self._lift(entries, 1)

    def _lift(self, entries: Sequence[HoldEntry], sign: int) -> None:
        self.engine.hold([each.held for each in entries], [sign] * len(entries))
        self._count(entries, sign)
        for each in entries:
            each.agent.take(each.hold.resources, sign)
            self._dirty.add(each.agent.row)
        self.mark_ports()

    def _keep(self, entry: HoldEntry) -> None:
        self._list(entry)
        entry.agent.take(entry.hold.resources, 1)
        self._dirty.add(entry.agent.row)

    def _drop(self, entry: HoldEntry) -> None:
        self._unlist(entry)
        entry.agent.take(entry.hold.resources, -1)
        self._dirty.add(entry.agent.row)

    def _list(self, entry: HoldEntry) -> None:
        key = entry.hold.key
        self.holds[key] = entry.agent.holds[key] = entry
        for tag in entry.tags:
            self._tagged.setdefault(tag, {})[key] = entry
        if entry.hold.kind is not HoldKind.GRANT:
            for index in self._indexes(entry):
                index[key] = entry

    def _unlist(self, entry: HoldEntry) -> None:
        key = entry.hold.key
        del self.holds[key], entry.agent.holds[key]
        for tag in entry.tags:
            there = self._tagged[tag]
            del there[key]
            if not there:
                del self._tagged[tag]
        for index in self._indexes(entry):
            del index[key]
        if entry.hold.kind is HoldKind.OFFER and not self._offers[entry.agent.row]:
            del self._offers[entry.agent.row]

    def _indexes(self, entry: HoldEntry) -> list[dict[str, HoldEntry]]:
        """Where those look who take offers back or move tasks out."""
        hold = entry.hold
        found: list[dict[str, HoldEntry]] = []
        if hold.kind is HoldKind.OFFER:
            found.append(self._offers.setdefault(entry.agent.row, {}))
        elif hold.kind is HoldKind.TASK:
            found.append(self._tasks.setdefault(hold.role, {}).setdefault(hold.priority, {}))
            if hold.revocable:
                found.append(self._revocable)
        if hold.revocable and hold.kind is not HoldKind.GRANT:
            if any(r.identity.reservations for r in hold.resources):
                found.append(self._loans)
            elif hold.want_id is None and any(r.identity == PLAIN for r in hold.resources):
                found.append(self._borrowed)
        return found

    # Tallies.

    def watching(self, tags: Iterable[str]) -> list[Tally]:
        """The tallies in use in which something with these tags counts."""
        self._forget_gone()
        found: dict[Tally, None] = {}
        for tag in tags:
            found.update(self._watched.get(tag, ()))
        return list(found)

    def follow_tallies(self) -> set[str]:
        """Count what is there in the tallies that are new, and forget those that have gone.

        Returns the tags that are watched by a new tally.
        """
        self._forget_gone()
        tags: set[str] = set()
        for tally in self.engine.fresh_tallies():
            parts = tally.tag.split("\n")
            for part in parts:
                self._watched.setdefault(part, {})[tally] = None
            if tally.tag.startswith(PORT_TAG):
                self._port_tallies[int(tally.tag.removeprefix(PORT_TAG))] = tally
                self._dirty.update(self.rows)
                continue
            tags.update(parts)
            entries = {key: each for part in parts for key, each in self._tagged.get(part, {}).items() if each.counted}
            nodes = [each.agent.row for each in entries.values()]
            self.engine.count([tally] * len(nodes), nodes, [1] * len(nodes))
        return tags

    def _forget_gone(self) -> None:
        """Count nothing more in tallies that went out of use; one that is in use again counts once it is followed."""
        for tally in self.engine.gone_tallies():
            self._forget(tally)

    def _forget(self, tally: Tally) -> None:
        for part in tally.tag.split("\n"):
            there = self._watched.get(part, {})
            there.pop(tally, None)
            if not there:
                self._watched.pop(part, None)
        if tally.tag.startswith(PORT_TAG):
            port = int(tally.tag.removeprefix(PORT_TAG))
            self._port_tallies.pop(port, None)
            self._ports_taken = {each for each in self._ports_taken if each[0] != port}

    def _count(self, entries: Sequence[HoldEntry], sign: int) -> None:
        """Count holds, or uncount them, wherever somebody watches."""
        self._forget_gone()
        if not self._watched:
            return
        tallies: list[Tally] = []
        nodes: list[int] = []
        for entry in entries:
            for tally in self.watching(entry.tags):
                tallies.append(tally)
                nodes.append(entry.agent.row)
        self.engine.count(tallies, nodes, [sign] * len(tallies))

    # Ports.

    def ports_given(self, row: int, ports: Iterable[int]) -> None:
        """An instance was placed whose class counts itself in the tallies of these ports."""
        self._ports_taken.update((port, row) for port in ports)

    def mark_ports(self) -> None:
        """Mark on the agents that changed which of the ports in demand are taken or missing."""
        self._forget_gone()
        dirty, self._dirty = self._dirty, set()
        if not self._port_tallies:
            return
        for row in sorted(dirty):
            entry = self.rows.get(row)
            if entry is None:
                continue
            free = entry.free_ports()
            for port in self._port_tallies:
                self._set_port(port, row, not any(low <= port <= high for low, high in free))

    def _set_port(self, port: int, row: int, taken: bool) -> None:
        if ((port, row) in self._ports_taken) == taken:
            return
        self.engine.count([self._port_tallies[port]], [row], [1 if taken else -1])
        if taken:
            self._ports_taken.add((port, row))
        else:
            self._ports_taken.discard((port, row))

    # Laws.

    def held(self) -> Iterator[Held]:
        """All that the engine counts as coming from here."""
        return (entry.held for entry in self.holds.values() if entry.counted)

    def invariants(self) -> None:
        """Errors: `AssertionError` when indexes disagree."""
        for agent in self.agents.values():
            assert self.rows[agent.row] is agent, f"agent {agent.view.id} has lost its row"
            for key, entry in agent.holds.items():
                assert self.holds.get(key) is entry, f"hold {key} is with its agent alone"
        offers = {key for key, each in self.holds.items() if each.hold.kind is HoldKind.OFFER}
        assert offers == {key for there in self._offers.values() for key in there}, "an offer is not found by its agent"
        assert sum(len(agent.holds) for agent in self.agents.values()) == len(self.holds), "a hold has no agent"


PORT_TAG = "port:"


def port_tally(port: int) -> Tally:
    """Where a fixed port is taken, or not there at all."""
    return Tally(AGENT, f"{PORT_TAG}{port}")


def is_port_rule(rule: Rule) -> bool:
    """Whether a rule asks for a fixed port to be free."""
    return rule.tally.tag.startswith(PORT_TAG)


def _node(view: AgentView) -> tuple[object, ...]:
    """What of an agent the engine knows."""
    return view.total, view.hostname, view.attributes, view.runtimes


def _attributes(view: AgentView) -> Mapping[str, str]:
    return {**view.attributes, **{RUNTIME + each: "yes" for each in view.runtimes}}
