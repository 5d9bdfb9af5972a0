"""The first turn: remembers from the records what a master must not forget, and waits for the others to tell the rest.

Rule: a new reign has a new epoch and a new master id, and what it does not know yet it does not declare lost.
"""

import msgspec

from corral.lib.ids import mint_uuid
from corral.master import claims, frameworks, losses, maintenance, timers
from corral.master.agent_entry import AgentEntry, AgentState
from corral.master.spec import (
    MAINTENANCE_KEY,
    AgentRecord,
    EpochRecord,
    FrameworkRecord,
    GoneRecord,
    MaintenanceRecord,
    RemovedRecord,
    WeightRecord,
    role_key,
    weight_key,
)
from corral.master.state import MasterState
from corral.model.ids import AgentId, FrameworkId
from corral.model.role import RoleSettings
from corral.runtime.core import Effect, Loaded, Note, Persist, SetTimer, decode_records


def load(state: MasterState, loaded: Loaded, now: float) -> list[Effect]:
    """Start the reign.

    Errors: `msgspec.ValidationError` when a record cannot be read.
    """
    epochs = decode_records(loaded, "epoch", EpochRecord)
    state.epoch = 1 + max((record.epoch for record in epochs.values()), default=0)
    state.master_id = _mint_master_id(state)
    state.loaded_at = now
    for record in decode_records(loaded, "removed", RemovedRecord).values():
        state.removed_ids = dict.fromkeys(record.ids)
    effects = _recover_roles(state, loaded)
    for id, remembered in decode_records(loaded, "agents/", AgentRecord).items():
        _recover_agent(state, AgentId(id), remembered, now)
    gone = decode_records(loaded, "gone/", GoneRecord).items()
    state.gone = {AgentId(id): one.at for id, one in sorted(gone, key=lambda each: each[1].at)}
    effects.append(Persist("epoch", EpochRecord(state.epoch)))
    for id, known in decode_records(loaded, "frameworks/", FrameworkRecord).items():
        effects += frameworks.recover(state, FrameworkId(id), known, now)
    for plan in decode_records(loaded, MAINTENANCE_KEY, MaintenanceRecord).values():
        effects += maintenance.recover(state, plan, now)
    why = f"{len(state.agents)} agents and {len(state.frameworks)} frameworks are remembered and may come back"
    facts = {"epoch": state.epoch, "master": state.master_id}
    return [*effects, Note("master started", why, "info", facts), SetTimer(timers.AGENTS, losses.watch_s(state))]


def _mint_master_id(state: MasterState) -> str:
    """A new id for the new reign; the epoch is part of it, so that it is new even if chance repeats itself."""
    first, dash, rest = mint_uuid(state.random).partition("-")
    return f"{int(first, 16) ^ state.epoch & 0xFFFFFFFF:08x}{dash}{rest}"


def _recover_roles(state: MasterState, loaded: Loaded) -> list[Effect]:
    """Remember the roles; a weight that an older release wrote is newer than what this one has of the role."""
    state.roles = decode_records(loaded, "roles/", RoleSettings)
    effects: list[Effect] = []
    for role, found in decode_records(loaded, "weights/", WeightRecord).items():
        settings = msgspec.structs.replace(state.roles.get(role, RoleSettings()), weight=found.weight)
        state.roles[role] = settings
        effects += [Persist(role_key(role), settings), Persist(weight_key(role), None)]
    for role in state.roles:
        claims.tell_role(state, role)
    return effects


def _recover_agent(state: MasterState, id: AgentId, record: AgentRecord, now: float) -> None:
    unreachable = record.unreachable_at is not None
    agent = AgentEntry(id, record.info, now, AgentState.UNREACHABLE if unreachable else AgentState.RECOVERED)
    agent.unreachable_at = record.unreachable_at
    agent.deactivated, agent.drain = record.deactivated, record.drain
    if agent.draining:
        state.draining[id] = None
    state.agents[id] = agent
    claims.tell_agent(state, agent)
