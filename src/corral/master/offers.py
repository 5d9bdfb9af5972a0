"""Makes offers, takes their answers, and takes offers back.

Rules: an offer's resources are neither free nor used while it is out; what an ACCEPT leaves over counts as declined; a
refused bundle is held back from that framework, role and agent until the filter ends, a larger one is not.
Source: Mesos v1 scheduler API, ACCEPT and DECLINE.
"""

import heapq
from collections.abc import Sequence

import msgspec

from corral.allocator.view import Filter, Grant
from corral.master import claims, operations, tasks, timers, watchdog
from corral.master.agent_entry import AgentEntry
from corral.master.effects import SendEvent
from corral.master.entries import FrameworkEntry, OfferEntry, WantEntry
from corral.master.executors import lent_executor, normal_executor
from corral.master.state import MasterState
from corral.master.validate import BadOffers, check_accept, check_executor_loan, check_loan, check_task
from corral.master.validate_executors import check_executor, check_group, needed_by
from corral.model import events
from corral.model.calls import Accept, Decline, Launch, LaunchGroup, Unsupported
from corral.model.ids import AgentId, OfferId
from corral.model.ledger import Pool, charged, drawn, lent, stripped
from corral.model.offer import Offer
from corral.model.operations import OperationState, ResourceOperation, unshared
from corral.model.resources import Resources, contains
from corral.model.task import Claim, ExecutorInfo, Reason, TaskInfo, TaskState, group_of
from corral.runtime.core import Effect

_MOST_REFUSE_S = 365 * 86400.0
_DEFAULT_REFUSE_S = 5.0
_LENT = "what is lent can be launched on and nothing else; wait for an offer that is not revocable"


def make_offers(state: MasterState, grants: Sequence[Grant], now: float) -> list[Effect]:
    """Turn what the allocator granted into offers, one event per framework."""
    made: dict[str, list[Offer]] = {}
    for grant in grants:
        framework = state.frameworks[grant.framework_id]
        assert framework.stream is not None, "offers are granted only to frameworks that listen"
        watchdog.feed(framework, now)
        made.setdefault(framework.stream, []).append(_make_offer(state, framework, grant, now))
    effects: list[Effect] = [SendEvent(stream, events.Offers(offers=tuple(found))) for stream, found in made.items()]
    return [*effects, *timers.ask_expiry(state, now)]


def _make_offer(state: MasterState, framework: FrameworkEntry, grant: Grant, now: float) -> Offer:
    agent = state.agents[grant.agent_id]
    resources = stripped(grant.resources)
    want = framework.wants[grant.want_id] if grant.want_id is not None else None
    seen = charged(resources, grant.role)
    revocable = grant.revocable or (want is not None and want.want.revocable)
    offer = Offer(
        id=OfferId(f"{state.master_id}-O{state.number('offer')}"),
        framework_id=framework.id,
        agent_id=agent.id,
        hostname=agent.info.hostname,
        ip=agent.info.ip,
        port=agent.info.port,
        role=grant.role,
        resources=lent(seen) if revocable else seen,
        attributes=agent.info.attributes,
        want_id=grant.want_id,
        devices=grant.devices,
        executor_ids=tuple(executor_id for owner, executor_id in agent.executors if owner == framework.id),
        domain=agent.info.domain,
        unavailability=agent.unavailability,
    )
    entry = OfferEntry(offer, resources, want, now, revocable=revocable)
    claims.hold_offer(state, entry, grant)
    state.offers[offer.id] = framework.offers[offer.id] = agent.offers[offer.id] = entry
    if want is not None:
        want.offered += 1
        framework.settle(want)
    _limit(state, entry, now)
    return offer


def _limit(state: MasterState, entry: OfferEntry, now: float) -> None:
    config = state.config
    timeout_s = config.want_offer_timeout_s if entry.want is not None else config.offer_timeout_s
    if timeout_s is None:
        return
    entry.expires_at = now + timeout_s
    heapq.heappush(state.expiries, (entry.expires_at, entry.offer.id))


def _take_out(state: MasterState, entry: OfferEntry, why: str, reason: Reason = Reason.INVALID_OFFERS) -> None:
    """The offer is over; its hold, and the want that misses an instance more, are in the hands of the caller."""
    offer = entry.offer
    framework = state.frameworks[offer.framework_id]
    del state.offers[offer.id], framework.offers[offer.id], state.agents[offer.agent_id].offers[offer.id]
    if entry.want is not None:
        entry.want.offered -= 1
    state.remember_gone(offer.id, why, reason)


def withdraw(state: MasterState, entry: OfferEntry, why: str, reason: Reason = Reason.INVALID_OFFERS) -> None:
    """Take an offer back without a word to the framework."""
    _take_out(state, entry, why, reason)
    claims.release_offer(state, entry)
    if entry.want is not None:
        claims.tell_want(state, state.frameworks[entry.offer.framework_id], entry.want)


def rescind(
    state: MasterState, entries: Sequence[OfferEntry], why: str, reason: Reason = Reason.INVALID_OFFERS
) -> list[Effect]:
    """Take offers back and tell their frameworks."""
    effects: list[Effect] = []
    for entry in entries:
        withdraw(state, entry, f"it was rescinded because {why}", reason)
        stream = state.frameworks[entry.offer.framework_id].stream
        if stream is not None:
            effects.append(SendEvent(stream, events.Rescind(offer_id=entry.offer.id)))
    return effects + timers.ask_allocation(state) if effects else []


def expire(state: MasterState, now: float) -> list[Effect]:
    """Rescind the offers whose time is up, and wait for the next."""
    state.offers_due_at = None
    due: list[OfferEntry] = []
    while state.expiries:
        at, offer_id = state.expiries[0]
        entry = state.offers.get(offer_id)
        if entry is not None and at > now:
            break
        heapq.heappop(state.expiries)
        if entry is not None:
            due.append(entry)
    return [*rescind(state, due, "it was not answered in time"), *timers.ask_expiry(state, now)]


def decline(state: MasterState, framework: FrameworkEntry, call: Decline, now: float) -> list[Effect]:
    """Take offers back and withhold the same resources for a while; offers that are not the framework's are ignored."""
    refused = False
    for offer_id in dict.fromkeys(call.offer_ids):
        entry = framework.offers.get(offer_id)
        if entry is None:
            continue
        withdraw(state, entry, "it was declined")
        refuse(state, framework, entry.offer.role, entry.offer.agent_id, entry.resources, call.filters.refuse_s, now)
        refused = True
    return [*timers.ask_allocation(state), *timers.ask_filters(state, now)] if refused else []


def refuse(
    state: MasterState,
    framework: FrameworkEntry,
    role: str,
    agent_id: AgentId,
    resources: Resources,
    refuse_s: float,
    now: float,
) -> None:
    """Withhold these resources of this agent from the framework's role for a while.

    Units: `refuse_s` seconds; negative counts as Mesos' default of 5, more than a year as a year. Shapes: 0 still waits
    the least time of the configuration, so that a framework which declines everything does not keep the master busy.
    """
    if not refuse_s >= 0:
        refuse_s = _DEFAULT_REFUSE_S
    until_at = now + min(max(refuse_s, state.config.least_refuse_s), _MOST_REFUSE_S)
    new = Filter(framework_id=framework.id, role=role, agent_id=agent_id, resources=resources, until_at=until_at)
    found = claims.filters(state, framework, role, agent_id)
    kept = [f for f in found if f.until_at > until_at or not contains(resources, f.resources)]
    kept.append(new)
    claims.tell_filters(state, framework, role, agent_id, kept[-state.config.most_filters :])
    heapq.heappush(state.filter_heap, (until_at, framework.id, role, agent_id))
    if len(state.filter_heap) > state.most_filter_ends:
        _drop_forgotten_ends(state)


def _drop_forgotten_ends(state: MasterState) -> None:
    """Filters that a REVIVE or a new subscription has dropped leave their end behind, at worst for a year."""
    state.filter_heap = [
        (one.until_at, one.framework_id, one.role, one.agent_id) for one in state.allocator.filters
    ]  # fmt: skip
    heapq.heapify(state.filter_heap)
    state.most_filter_ends = max(4096, 2 * len(state.filter_heap))


def end_filters(state: MasterState, now: float) -> list[Effect]:
    """Some filters' time is up, which the allocator sees for itself: allocate anew."""
    state.filters_due_at = None
    while state.filter_heap and state.filter_heap[0][0] <= now:
        heapq.heappop(state.filter_heap)
    return [*timers.ask_allocation(state), *timers.ask_filters(state, now)]


def drop_filters_of(state: MasterState, agent_id: AgentId) -> None:
    """The agent has changed or gone: what was refused there says nothing any more."""
    claims.drop_filters_on(state, agent_id)


def accept(state: MasterState, framework: FrameworkEntry, call: Accept, now: float) -> list[Effect]:
    """Carry out the operations of an ACCEPT in order, each on what the one before has left.

    Shapes: what is wrong is told task by task as status updates; the call itself succeeds.
    """
    try:
        agent, entries = check_accept(state, framework, call.offer_ids)
    except BadOffers as bad:
        return _accept_nothing(state, framework, call, bad, now)
    role = entries[0].offer.role
    left = Pool()
    unused = list(entries)
    for entry in entries:
        _take_out(state, entry, "it was accepted before")
        # Several offers may hold the same shared volume.
        left.add(tuple(r for r in entry.resources if not (r.identity.shared and left.holds((r,)))))
    effects: list[Effect] = []
    for operation in call.operations:
        match operation:
            case Launch():
                for info in operation.tasks:
                    effects += _launch(state, framework, agent, role, info, left, unused, entries[-1], now)
            case LaunchGroup():
                effects += _launch_group(state, framework, agent, role, operation, left, unused, entries[-1], now)
            case Unsupported():
                why = f"operation {operation.kind} is not carried out by this release; its resources were offered again"
                effects += operations.refuse_unknown(state, framework, agent.id, operation, OperationState.ERROR, why)
            case _:
                if entries[0].revocable:
                    effects += operations.refuse(state, framework, agent, operation, _LENT)
                else:
                    effects += _operate(state, framework, agent, role, operation, left)
    for entry in unused:
        claims.release_offer(state, entry)
    for want in {id(entry.want): entry.want for entry in entries}.values():
        if want is not None:
            claims.tell_want(state, framework, want)
    rest = left.bundle()
    if rest:
        refuse(state, framework, role, agent.id, rest, call.filters.refuse_s, now)
        effects += timers.ask_filters(state, now)
    if rest or framework.waiting:
        effects += timers.ask_allocation(state)
    return effects


def _launch(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, role: str, info: TaskInfo, left: Pool,
    unused: list[OfferEntry], last: OfferEntry, now: float,
) -> list[Effect]:  # fmt: skip
    """Shapes: each task takes the place of one offer in `unused`, in the order of both; tasks beyond them have the
    standing of the `last` of all.
    """
    standing = unused[0] if unused else last
    want = standing.want
    resources = stripped(info.resources)
    if standing.revocable:
        resources = drawn(left.bundle(), resources)
    lends = standing.revocable
    executor = _executor_of(framework, agent, info.executor, (resources,), left, lends=lends)
    why = check_task(framework, agent, role, info, resources, left)
    if why is None and executor is not None:
        why = check_executor(framework, agent, role, info, executor, resources, left)
    if why is None and lends and want is None:
        why = check_loan(info) or _check_new(framework, agent, info.executor)
    if why is not None:
        return tasks.reject(framework, (info,), TaskState.ERROR, Reason.TASK_INVALID, why, now)
    left.take(unshared(resources))
    if executor is not None:
        left.take(unshared(needed_by(framework, agent, executor)))
    offer = unused.pop(0) if unused else None
    claim = _claim(want, offer)
    if want is None and lends:
        claim = Claim(revocable=True, group=group_of(info) or "")
    info = msgspec.structs.replace(info, resources=charged(resources, role), claim=claim, executor=executor)
    return tasks.launch(state, framework, agent, role, info, resources, offer, now)


def _executor_of(
    framework: FrameworkEntry, agent: AgentEntry, info: ExecutorInfo | None, found: Sequence[Resources], left: Pool, *,
    lends: bool,
) -> ExecutorInfo | None:  # fmt: skip
    """The executor as it would be counted. Shapes: `found` is what its tasks take of what is `left` of the offers."""
    if info is None:
        return None
    if not lends:
        return normal_executor(info, framework.id)
    rest = _after(left, found).bundle()
    return lent_executor(info, framework.id, rest, agent.executors.get((framework.id, info.executor_id)))


def _check_new(framework: FrameworkEntry, agent: AgentEntry, info: ExecutorInfo | None) -> str | None:
    if info is None or (framework.id, info.executor_id) in agent.executors:
        return None
    return check_executor_loan(info)


def _draw_each(left: Pool, infos: Sequence[TaskInfo]) -> list[Resources]:
    """What each task takes of a loan, in the form in which it is held, none of it twice."""
    rest = Pool(left.bundle())
    found = []
    for info in infos:
        found.append(drawn(rest.bundle(), stripped(info.resources)))
        if rest.holds(found[-1]):
            rest.take(unshared(found[-1]))
    return found


def _after(left: Pool, taken: Sequence[Resources]) -> Pool:
    """What these leave; what is not there is not taken, and is told where it is looked at."""
    rest = Pool(left.bundle())
    for resources in taken:
        if rest.holds(resources):
            rest.take(unshared(resources))
    return rest


def _claim(want: WantEntry | None, offer: OfferEntry | None) -> Claim | None:
    """The standing of a task that is launched; one that takes an offer for a want is one instance less to wait for."""
    if want is None:
        return None
    if offer is not None:
        want.remaining = max(want.remaining - 1, 0)
    return claims.claim(want.want, offer.offer.devices if offer is not None else ())


def _launch_group(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, role: str, group: LaunchGroup, left: Pool,
    unused: list[OfferEntry], last: OfferEntry, now: float,
) -> list[Effect]:  # fmt: skip
    """All tasks of the group or none. Shapes: the whole group takes the place of one offer."""
    standing = unused[0] if unused else last
    want, lends = standing.want, standing.revocable
    found = _draw_each(left, group.tasks) if lends else [stripped(info.resources) for info in group.tasks]
    executor = _executor_of(framework, agent, group.executor, found, left, lends=lends)
    assert executor is not None, "a group has an executor"
    why = check_group(framework, agent, role, group, executor, found, left)
    if why is None and lends and want is None:
        loans = (check_loan(info) for info in group.tasks)
        why = next((each for each in loans if each), None) or _check_new(framework, agent, group.executor)
    if why is not None:
        return tasks.reject(framework, group.tasks, TaskState.ERROR, Reason.TASK_GROUP_INVALID, why, now)
    for resources in (*found, needed_by(framework, agent, executor)):
        left.take(unshared(resources))
    offer = unused.pop(0) if unused else None
    claim = _claim(want, offer)
    is_loan = want is None and lends
    infos = [
        msgspec.structs.replace(
            info, resources=charged(resources, role), executor=executor,
            claim=Claim(revocable=True, group=group_of(info) or "") if is_loan else claim,
        )
        for info, resources in zip(group.tasks, found, strict=True)
    ]  # fmt: skip
    return tasks.launch_group(state, framework, agent, role, infos, offer, now)


def _operate(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, role: str, operation: ResourceOperation,
    left: Pool,
) -> list[Effect]:  # fmt: skip
    """Shapes: the offers are held on as they were made, though their resources change their form, until the end."""
    effects = operations.carry_out(state, framework, agent, role, operation, left)
    return effects + rescind(state, operations.sharers(agent, operation), "its shared volume is destroyed")


def _accept_nothing(
    state: MasterState, framework: FrameworkEntry, call: Accept, bad: BadOffers, now: float
) -> list[Effect]:
    """Give back the offers that stand and tell each task that it was not launched."""
    for entry in bad.valid:
        withdraw(state, entry, "it was accepted together with an offer that was not valid")
    ended_as = TaskState.DROPPED if framework.partition_aware else TaskState.LOST
    effects: list[Effect] = timers.ask_allocation(state) if bad.valid else []
    for operation in call.operations:
        match operation:
            case Launch() | LaunchGroup():
                infos = operation.tasks
                effects += tasks.reject(
                    framework, infos, ended_as, bad.reason, f"task not launched: {bad.message}", now
                )
            case Unsupported():
                why = f"operation {operation.kind} was dropped: {bad.message}"
                effects += operations.refuse_unknown(state, framework, None, operation, OperationState.DROPPED, why)
            case _:
                effects += operations.drop_all(state, framework, operation, bad.message, None)
    return effects
