"""Offers to launches, and what waits to the wants that the master knows.

All wants are stated anew whenever they differ from what the master last heard, gathered over a few milliseconds; a
launch lowers a want's count on both sides and needs no word. Source: DESIGN, wants; Marathon's contract, section 10.
"""

from corral.frameworks.services import accepted, backoff, residency, retry
from corral.frameworks.services.launch import (
    HOME,
    app_of_want,
    assign_ports,
    home_want_id_of,
    make_want,
    want_id_of,
)
from corral.frameworks.services.placing import make_launch, place, tell_launch
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.role_spec import Asking, launch_role
from corral.frameworks.services.roles import become_resident
from corral.frameworks.services.state import App, Phase, State, replace
from corral.model import calls, events
from corral.model.ids import FrameworkId, OfferId, WantId
from corral.model.offer import Explanation, Filters, Offer, Refusal, Want
from corral.runtime.core import Effect, Note, SetTimer
from corral.sdk.effects import Call
from corral.sdk.match import Placement, match

WANTS = "wants"
DELAY = "delay/"
RESERVED = "reserved"
COARSE_REFUSE_S = 120.0
RESERVED_REFUSE_S = 5.0
"""What is reserved for an instance that cannot be started on it yet is offered again before long."""


def take_offers(state: State, event: events.Offers, now: float) -> list[Effect]:
    """Launch on them, as many as one input may write about; the rest is taken next."""
    state.backlog.extend(event.offers)
    return work_off(state, now)


def work_off(state: State, now: float) -> list[Effect]:
    if not state.backlog or not state.connected or state.framework_id is None:
        state.backlog.clear()
        return []
    offers = state.backlog[: state.config.most_writes]
    del state.backlog[: state.config.most_writes]
    effects: list[Effect] = []
    offers = [left for offer in offers for left in _use_reserved(state, offer, effects, now)]
    offers = _use_open(state, offers, effects, now)
    matched = match(offers, _waiting(state, offers, now))
    for placement in matched.placements:
        effects.extend(_launch(state, placement, now))
    shaped = tuple(o.id for o in matched.unused if o.want_id is not None)
    coarse = tuple(o.id for o in matched.unused if o.want_id is None)
    if shaped:
        # The want has changed meanwhile: these resources are free for the next one at once.
        effects.append(_decline(state.framework_id, shaped, 0.0))
    if coarse:
        effects.append(_decline(state.framework_id, coarse, COARSE_REFUSE_S))
    return effects


def _decline(framework_id: FrameworkId, offer_ids: tuple[OfferId, ...], refuse_s: float) -> Effect:
    return Call(calls.Decline(framework_id=framework_id, offer_ids=offer_ids, filters=Filters(refuse_s=refuse_s)))


def _use_reserved(state: State, offer: Offer, effects: list[Effect], now: float) -> list[Offer]:
    """Start again what has reserved something of this offer, and free what nobody has any more.

    Shapes: returns what is left to be looked at: the offer, the part of it that is for anybody, or nothing.
    """
    if offer.want_id is not None or state.framework_id is None:
        return [offer]
    if not any(r.identity.reservations for r in offer.resources):
        return [offer]
    held = residency.held_in(offer, state.framework_id)
    waiting, used = (residency.waiting(state, now), residency.names_in_use(state)) if held else ({}, set())
    operations: list[calls.Operation] = []
    for each in held:
        if each.name in waiting:
            operations += _launch_again(state, *waiting[each.name], each, offer, effects, now)
        elif each.name not in used:
            operations += residency.operations_to_free(each)
            why = "no instance has it any more"
            facts = {"reservation": each.name, "agent": offer.agent_id}
            effects.append(Note("reservation freed", why, facts=facts))
    if operations:
        accept = calls.Accept(
            framework_id=state.framework_id, offer_ids=(offer.id,), operations=tuple(operations),
            filters=Filters(refuse_s=RESERVED_REFUSE_S),
        )  # fmt: skip
        effects.append(Call(accept))
        return []
    waits = offer.role in state.roles.waiting
    rest = residency.unheld_part(offer) if waits else residency.unreserved_part(offer)
    if rest is not None:
        return [rest]
    refuse_s = RESERVED_REFUSE_S if any(each.name in used for each in held) else COARSE_REFUSE_S
    effects.append(_decline(state.framework_id, (offer.id,), refuse_s))
    return []


def _use_open(state: State, offers: list[Offer], effects: list[Effect], now: float) -> list[Offer]:
    """Launch on what is reserved for a role and for no app of it in particular, as many as one input may write about.

    Shapes: returns what is left to be looked at: offers without anything reserved.
    """
    parts = accepted.find_parts(offers)
    if not parts:
        return offers
    operations: dict[OfferId, list[calls.Operation]] = {part.offer.id: [] for part in parts}
    room = state.config.most_writes
    for app_id in list(state.roles.asking):
        if room <= 0:
            break
        room -= _fill(state, state.apps[app_id], parts, operations, room, effects, now)
    assert state.framework_id is not None
    for offer_id, made in operations.items():
        if made:
            # The rest comes back at once, for who did not get their turn.
            accept = calls.Accept(
                framework_id=state.framework_id, offer_ids=(offer_id,), operations=tuple(made),
                filters=Filters(refuse_s=0.0),
            )  # fmt: skip
            effects.append(Call(accept))
    left: list[Offer] = []
    for offer in offers:
        if operations.get(offer.id):
            continue
        rest = residency.unreserved_part(offer)
        if rest is not None:
            left.append(rest)
            continue
        # Where volumes are, more may have been left out of it that is to be had before long.
        refuse_s = RESERVED_REFUSE_S if offer.role in state.roles.reserved else COARSE_REFUSE_S
        effects.append(_decline(state.framework_id, (offer.id,), refuse_s if room > 0 else 0.0))
    return left


def _fill(
    state: State, app: App, parts: list[accepted.Part], operations: dict[OfferId, list[calls.Operation]], most: int,
    effects: list[Effect], now: float,
) -> int:  # fmt: skip
    """Launch what waits of the app where there is room; returns how many."""
    waiting = app.up_to_date[Phase.SCHEDULED]
    siblings = accepted.Siblings(app)
    launched = 0
    while launched < most and waiting and accepted.count_waiting(state, app) and backoff.wait_s(app, now) <= 0:
        found = accepted.choose(state, app, parts, siblings, now)
        if found is None:
            break
        part, placement = found
        chosen = retry.choose_waiting(app, part.offer.hostname, homed=bool(app.homed))
        instance = place(state, app, chosen, placement, assign_ports(app.spec, placement.ports), now)
        effects += tell_launch(app, instance, f"it runs on what is reserved for role {part.offer.role}")
        operations[part.offer.id].append(make_launch(state, app, instance, placement))
        part.give(placement)
        siblings.add(instance)
        launched += 1
    return launched


def _launch_again(
    state: State, app: App, instance: Instance, held: residency.Held, offer: Offer, effects: list[Effect], now: float
) -> list[calls.Operation]:
    found = residency.operations_to_launch(app, instance, held)
    if found is None:
        return []
    before, resources = found
    placement = Placement(offer=offer, want_id=want_id_of(app), resources=resources)
    instance = place(state, app, instance, placement, instance.ports, now)
    state.revived.discard(instance.reservation)
    effects += tell_launch(app, instance, "it has its volumes there")
    return [*before, make_launch(state, app, instance, placement)]


def _waiting(state: State, offers: list[Offer], now: float) -> list[Want]:
    """The wants these offers may serve."""
    if any(o.want_id is None for o in offers):
        return [want for app in state.apps.values() for want in _wants_now(state, app, now)]
    found: dict[WantId, Want] = {}
    for offer in offers:
        assert offer.want_id is not None
        if offer.want_id not in found:
            app = state.apps.get(app_of_want(offer.want_id))
            for want in _wants_now(state, app, now) if app is not None else ():
                if want.id == offer.want_id:
                    found[want.id] = want
    return list(found.values())


def _wants_now(state: State, app: App, now: float) -> list[Want]:
    """What the app waits for that is for everybody, whether or not it may be launched yet: in two parts when some would
    rather stay."""
    waiting = app.up_to_date[Phase.SCHEDULED]
    if not waiting or app.record.stopping or not accepted.takes_plain(app.spec):
        return []
    homes = app.homes
    # Who has volumes takes plain offers of them.
    settled = sum(i.kept for i in waiting.values()) if app.spec.volumes else 0
    found: list[Want] = []
    if len(waiting) > len(homes) + settled:
        want = make_want(app, state.config, len(waiting) - len(homes) - settled)
        found.append(state.nodes.wish(want, app.spec.id, now))
    if homes:
        want = replace(make_want(app, state.config, len(homes)), id=home_want_id_of(app))
        found.append(state.nodes.wish(want, app.spec.id, now, homes))
    return found


def _launch(state: State, placement: Placement, now: float) -> list[Effect]:
    offer = placement.offer
    app = state.apps[app_of_want(placement.want_id)]
    homed = placement.want_id.endswith(HOME)
    waiting = retry.choose_waiting(app, offer.hostname, homed=homed)
    assert state.framework_id is not None
    before: tuple[calls.Operation, ...] = ()
    if app.spec.volumes:
        waiting = residency.settle_down(state, app, waiting)
        before, resources = residency.first_operations(
            app, waiting, placement.resources, offer.role, state.framework_id, state.config.principal or None
        )
        placement = replace(placement, resources=resources)
    ports = assign_ports(app.spec, placement.ports)
    instance = place(state, app, waiting, placement, ports, now)
    stated = state.wants.get(placement.want_id)
    if stated is not None and offer.want_id is not None:
        if stated.count > 1:
            state.wants[placement.want_id] = replace(stated, count=stated.count - 1)
        else:
            del state.wants[placement.want_id]
            app.explanation = None
    accept = calls.Accept(
        framework_id=state.framework_id,
        offer_ids=(offer.id,),
        operations=(*before, make_launch(state, app, instance, placement)),
        filters=Filters(refuse_s=0.0),
    )
    persisted, note = tell_launch(app, instance, f"app {app.spec.id} wants {app.spec.instances} instances")
    return [persisted, Call(accept), note]


# Wants.


def state_wants(state: State, now: float) -> list[Effect]:
    """Find out whether what is wanted differs from what was stated, and say it soon if so."""
    effects: list[Effect] = []
    for app_id in state.restless:
        effects.extend(_restate(state, app_id, now))
    state.restless.clear()
    if state.wants_changed and state.connected:
        # A long list is worth waiting for a little, as each saying costs its whole length.
        effects.append(SetTimer(WANTS, 0.001 + 0.00002 * len(state.wants), if_unset=True))
    return effects


def _restate(state: State, app_id: str, now: float) -> list[Effect]:
    app = state.apps.get(app_id)
    wanted = _wants_now(state, app, now) if app is not None else []
    effects: list[Effect] = []
    if app is not None and app.spec.volumes:
        role = launch_role(app.spec, state.config)
        effects = [*become_resident(state, role, now), *_ask_for_reserved(state, app, now)]
    if app is not None and _is_refused(state, app):
        app.explanation = _explain_refused(state, app)
        wanted = []
    asked = accepted.count_waiting(state, app)
    if app is not None and (wanted or asked or (app.spec.volumes and app.up_to_date[Phase.SCHEDULED])):
        wait_s = backoff.wait_s(app, now)
        if wait_s > 0:
            wanted, asked = [], 0
            effects.append(SetTimer(DELAY + app_id, wait_s))
    _ask_for_open(state, app_id, app, asked)
    named = tuple(want.id for want in wanted)
    for stated in state.wants_of.pop(app_id, ()):
        if stated not in named and state.wants.pop(stated, None) is not None:
            state.wants_changed = True
    if named:
        state.wants_of[app_id] = named
    elif app is not None and not app.up_to_date[Phase.SCHEDULED]:
        app.explanation = None
    for want in wanted:
        if state.wants.get(want.id) != want:
            state.wants[want.id] = want
            state.wants_changed = True
    return effects


def _is_refused(state: State, app: App) -> bool:
    """Whether it waits for a role that the master would not have the framework in."""
    waits = bool(app.up_to_date[Phase.SCHEDULED]) and not app.record.stopping
    return waits and launch_role(app.spec, state.config) in state.roles.refused


def _explain_refused(state: State, app: App) -> Explanation:
    role = launch_role(app.spec, state.config)
    why = f"the framework may not be in role {role}: {state.roles.refused[role]}"
    return Explanation(
        want_id=want_id_of(app), framework_id=state.framework_id or FrameworkId(""), role=role,
        waiting=len(app.up_to_date[Phase.SCHEDULED]), since_at=app.since_at, agents=0,
        refusals=(Refusal(reason="role", detail=why, agents=0),),
    )  # fmt: skip


def _ask_for_open(state: State, app_id: str, app: App | None, count: int) -> None:
    """The app waits for what is reserved for its role, in so many instances."""
    asking = None
    if app is not None and count:
        asking = Asking(launch_role(app.spec, state.config), app.record.config, count, app.present)
    is_new = state.roles.ask(app_id, asking)
    if app is not None and (is_new or not app.up_to_date[Phase.SCHEDULED]):
        app.turned_away.clear()


def lose_agent(state: State, event: events.Failure) -> list[Effect]:
    """What a removed agent had too little of is no reason any more."""
    if event.executor_id is None:
        for app_id in state.roles.asking:
            state.apps[app_id].turned_away.pop(event.agent_id, None)
    return []


def _ask_for_reserved(state: State, app: App, now: float) -> list[Effect]:
    """Once for each instance that may be started on what it has reserved."""
    if not state.connected or app.record.stopping or backoff.wait_s(app, now) > 0:
        return []
    news = {i.reservation for i in app.up_to_date[Phase.SCHEDULED].values() if i.kept} - state.revived
    state.revived |= news
    return [SetTimer(RESERVED, 0.01, if_unset=True)] if news else []


def say_wants(state: State) -> list[Effect]:
    """All wants at once, which is how the master learns that one was withdrawn."""
    if not state.connected or state.framework_id is None or not state.wants_changed:
        return []
    state.wants_changed = False
    return [Call(calls.Request(framework_id=state.framework_id, wants=tuple(state.wants.values())))]


def take_explanations(state: State, event: events.Explanations) -> list[Effect]:
    """Keep why each app waits; say once when none of the agents could ever take one."""
    effects: list[Effect] = []
    named = set()
    for explanation in event.explanations:
        app = state.apps.get(app_of_want(explanation.want_id))
        if (
            app is None
            or not accepted.takes_plain(app.spec)
            or explanation.want_id not in (want_id_of(app), home_want_id_of(app))
        ):
            continue
        named.add(app.spec.id)
        before = app.explanation
        app.explanation = explanation
        if explanation.never and not (before is not None and before.never):
            why = "; ".join(r.detail for r in explanation.refusals) or "no agent could ever fit it"
            effects.append(Note("app can never run", why, "warning", {"app": app.spec.id}))
    for app_id in state.explained - named:
        gone = state.apps.get(app_id)
        if gone is not None:
            gone.explanation = None
    state.explained = named
    return effects
