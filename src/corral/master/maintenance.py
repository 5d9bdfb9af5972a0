"""Keeps the schedule of maintenance, takes machines down and brings them up.

Rules: a machine is up, scheduled, or down, in this order; only scheduled ones go down, and only down ones come up. The
schedule and what is down are durable before anybody acts on them. Source: Mesos v1, maintenance primitives.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from corral.lib.errors import Invalid
from corral.master import claims, inverse, losses, offers, timers
from corral.master.agent_entry import AgentEntry
from corral.master.spec import MAINTENANCE_KEY, MaintenanceRecord
from corral.master.state import MasterState
from corral.model.maintenance import (
    AnswerRow,
    Machine,
    MachineRow,
    StartMaintenance,
    StopMaintenance,
    UpdateSchedule,
)
from corral.runtime.core import Effect, Note, Persist


def update_schedule(state: MasterState, command: UpdateSchedule, now: float) -> list[Effect]:
    """Replace the schedule; offers of agents for which something changes come anew.

    Errors: `Invalid` for a machine that is listed twice, and for one that is down and not listed.
    """
    listed = [machine for window in command.windows for machine in window.machines]
    _expect_once(listed)
    kept = set(listed)
    missing = [machine for machine in state.down if machine not in kept]
    if missing:
        raise Invalid(f"machine {missing[0]} is down and must stay in the schedule; bring it up first")
    state.windows = command.windows
    _index(state)
    why = f"an operator has set {len(command.windows)} windows for {len(listed)} machines"
    return [_persist(state), Note("maintenance scheduled", why), *_place_all(state, now)]


def _expect_once(machines: Sequence[Machine]) -> None:
    twice = sorted(str(machine) for machine, count in Counter(machines).items() if count > 1)
    if twice:
        raise Invalid(f"machine {twice[0]} is listed twice; name each once")


def _index(state: MasterState) -> None:
    state.machines = {m: window.unavailability for window in state.windows for m in window.machines}


def _persist(state: MasterState) -> Effect:
    record = MaintenanceRecord(windows=state.windows, down=tuple(state.down))
    return Persist(MAINTENANCE_KEY, record if state.windows else None)


def _place_all(state: MasterState, now: float) -> list[Effect]:
    effects: list[Effect] = []
    for agent in state.agents.values():
        before, was_in = agent.unavailability, agent.in_window
        if not inverse.place(state, agent, now):
            continue
        if agent.unavailability != before:
            effects += inverse.withdraw(state, agent)
            effects += offers.rescind(state, list(agent.offers.values()), "the agent's maintenance was planned anew")
        if agent.in_window is not was_in:
            effects += _turn(state, agent)
    return [*effects, *inverse.ask_timer(state, now)]


def _turn(state: MasterState, agent: AgentEntry) -> list[Effect]:
    """The agent's window has begun or ended: in it what is not reserved is lent, and wants get nothing."""
    claims.tell_agent(state, agent)
    why = "begun" if agent.in_window else "ended"
    facts = {"agent": agent.id, "hostname": agent.info.hostname}
    return [
        Note(f"maintenance window {why}", "it was scheduled", "info", facts),
        *offers.rescind(state, list(agent.offers.values()), f"the agent's maintenance window has {why}"),
        *timers.ask_allocation(state),
    ]


def pass_time(state: MasterState, now: float) -> list[Effect]:
    """An instant of the schedule has come, or somebody is to be asked again."""
    state.maintenance_due_at = None
    effects = _place_all(state, now)
    state.to_review.update((agent.id, None) for agent in state.agents.values() if agent.unavailability is not None)
    return effects


def start(state: MasterState, command: StartMaintenance, now: float) -> list[Effect]:
    """Take machines down with all their agents.

    Errors: `Invalid`, before anything happens, without machines, for one twice, and for one that is not scheduled or
    down already.
    """
    _expect_machines(command.machines)
    for machine in command.machines:
        if machine in state.down:
            raise Invalid(f"machine {machine} is down already")
        if machine not in state.machines:
            raise Invalid(f"machine {machine} is not scheduled for maintenance; schedule it first")
    state.down.update(dict.fromkeys(command.machines))
    effects = [_persist(state)]
    chosen = set(command.machines)
    for agent in [a for a in state.agents.values() if state.find_machine(a.info) in chosen]:
        effects += losses.expel(state, agent, f"machine {state.find_machine(agent.info)} is down for maintenance", now)
    return effects + [
        Note("machine down", "an operator has started its maintenance", facts={"machine": str(m)})
        for m in command.machines
    ]


def _expect_machines(machines: Sequence[Machine]) -> None:
    if not machines:
        raise Invalid("the list of machines is empty; name at least one")
    _expect_once(machines)


def stop(state: MasterState, command: StopMaintenance, now: float) -> list[Effect]:
    """Bring machines up: their agents may come back, and they leave the schedule.

    Errors: `Invalid`, before anything happens, without machines, for one twice, and for one that is not down.
    """
    _expect_machines(command.machines)
    for machine in command.machines:
        if machine not in state.down:
            raise Invalid(f"machine {machine} is not down")
    for machine in command.machines:
        del state.down[machine]
    over = set(command.machines)
    kept = (msgspec.structs.replace(w, machines=tuple(m for m in w.machines if m not in over)) for w in state.windows)
    state.windows = tuple(window for window in kept if window.machines)
    _index(state)
    return [
        _persist(state),
        *(
            Note("machine up", "an operator has stopped its maintenance", facts={"machine": str(m)})
            for m in command.machines
        ),
        *_place_all(state, now),
    ]


def recover(state: MasterState, record: MaintenanceRecord, now: float) -> list[Effect]:
    """Take up what an earlier master has written; its agents are known by now."""
    state.windows = record.windows
    state.down = dict.fromkeys(record.down)
    _index(state)
    return _place_all(state, now)


# What is shown.


def shown_machines(state: MasterState) -> tuple[MachineRow, ...]:
    """The machines that are scheduled and not down, with what frameworks say to it."""
    if not state.machines:
        return ()
    answers: dict[Machine, list[AnswerRow]] = {machine: [] for machine in state.machines if machine not in state.down}
    for agent in state.agents.values():
        machine = state.find_machine(agent.info) if agent.inverse else None
        if machine in answers:
            answers[machine] += [
                AnswerRow(framework_id=id, status=entry.answer, at=entry.at) for id, entry in agent.inverse.items()
            ]
    return tuple(MachineRow(machine=machine, answers=tuple(found)) for machine, found in answers.items())
