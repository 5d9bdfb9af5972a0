"""Offers to launches, and what waits to the wants that the master knows.

All wants are stated anew whenever they differ from what the master last heard, gathered over a few milliseconds; a
launch lowers a want's count on both sides and needs no word. Source: DESIGN, wants; Marathon's contract, section 10.
"""

from corral.frameworks.services import backoff, partition
from corral.frameworks.services.events import tell_instance
from corral.frameworks.services.launch import (
    app_of_want,
    assign_ports,
    build_task,
    group_value,
    make_want,
    scaling_variables,
    want_id_of,
)
from corral.frameworks.services.pod_launch import build_group
from corral.frameworks.services.pod_tasks import count_checks, make_containers
from corral.frameworks.services.spec import Condition, Instance
from corral.frameworks.services.state import App, Phase, State, replace, task_id_of
from corral.model import calls, events
from corral.model.ids import WantId
from corral.model.offer import Filters, Offer, Want
from corral.runtime.core import Effect, Note, Persist, SetTimer
from corral.sdk.effects import Call
from corral.sdk.match import Placement, match

WANTS = "wants"
DELAY = "delay/"
COARSE_REFUSE_S = 120.0


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
    matched = match(offers, _waiting(state, offers))
    effects: list[Effect] = []
    for placement in matched.placements:
        effects.extend(_launch(state, placement, now))
    shaped = tuple(o.id for o in matched.unused if o.want_id is not None)
    coarse = tuple(o.id for o in matched.unused if o.want_id is None)
    if shaped:
        # The want has changed meanwhile: these resources are free for the next one at once.
        decline = calls.Decline(framework_id=state.framework_id, offer_ids=shaped, filters=Filters(refuse_s=0.0))
        effects.append(Call(decline))
    if coarse:
        decline = calls.Decline(
            framework_id=state.framework_id, offer_ids=coarse, filters=Filters(refuse_s=COARSE_REFUSE_S)
        )
        effects.append(Call(decline))
    return effects


def _waiting(state: State, offers: list[Offer]) -> list[Want]:
    """The wants these offers may serve."""
    if any(o.want_id is None for o in offers):
        return [w for w in (_want_now(state, app) for app in state.apps.values()) if w is not None]
    found: dict[WantId, Want] = {}
    for offer in offers:
        assert offer.want_id is not None
        if offer.want_id not in found:
            app = state.apps.get(app_of_want(offer.want_id))
            want = _want_now(state, app) if app is not None else None
            if want is not None and want.id == offer.want_id:
                found[want.id] = want
    return list(found.values())


def _want_now(state: State, app: App) -> Want | None:
    """What the app waits for, whether or not it may be launched yet."""
    count = len(app.up_to_date[Phase.SCHEDULED])
    return make_want(app, state.config, count) if count and not app.record.stopping else None


def _launch(state: State, placement: Placement, now: float) -> list[Effect]:
    offer = placement.offer
    app = state.apps[app_of_want(placement.want_id)]
    waiting = next(iter(app.up_to_date[Phase.SCHEDULED].values()))
    instance = replace(
        waiting,
        version=app.record.version,
        condition=Condition.PROVISIONED,
        agent_id=offer.agent_id,
        hostname=offer.hostname,
        node_ip=offer.ip,
        role=offer.role,
        ports=assign_ports(app.spec, placement.ports),
        staged_at=now,
        group_value=group_value(app.spec, offer),
        checks=count_checks(app.spec),
        readiness=app.spec.readiness is not None,
        containers=make_containers(app.spec, now),
        node=f"{offer.ip}:{offer.port}",
        single=partition.is_single(app.spec),
        fence_s=partition.fence_s(app.spec, state.config),
    )
    app.place(instance)
    tell_instance(state, instance)
    backoff.advance(app, now)
    state.watched[instance.id] = now + state.config.launch_timeout_s
    stated = state.wants.get(placement.want_id)
    if stated is not None and offer.want_id is not None:
        if stated.count > 1:
            state.wants[placement.want_id] = replace(stated, count=stated.count - 1)
        else:
            del state.wants[placement.want_id]
            app.explanation = None
    state.restless[app.spec.id] = None
    operation = _make_launch(state, app, instance, placement)
    assert state.framework_id is not None
    accept = calls.Accept(
        framework_id=state.framework_id,
        offer_ids=(offer.id,),
        operations=(operation,),
        filters=Filters(refuse_s=0.0),
    )
    facts = {"task": task_id_of(instance), "agent": offer.agent_id, "app": app.spec.id}
    return [
        Persist(f"instance/{instance.id}", instance),
        Call(accept),
        Note("task launched", f"app {app.spec.id} wants {app.spec.instances} instances", facts=facts),
    ]


def _make_launch(state: State, app: App, instance: Instance, placement: Placement) -> calls.Operation:
    if app.spec.pod is not None:
        return build_group(app, instance, placement, state.config)
    record = state.elastic.records.get(app.spec.id)
    scaling = () if record is None else scaling_variables(app.spec.id, record.token, state.config)
    return calls.Launch(tasks=(build_task(app, instance, placement, state.config, scaling),))


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
    stated = state.wants_of.get(app_id)
    wanted = _want_now(state, app) if app is not None else None
    effects: list[Effect] = []
    if app is not None and wanted is not None:
        wait_s = backoff.wait_s(app, now)
        if wait_s > 0:
            wanted = None
            effects.append(SetTimer(DELAY + app_id, wait_s))
    if stated is not None and stated in state.wants and (wanted is None or stated != wanted.id):
        del state.wants[stated]
        state.wants_changed = True
    if wanted is None:
        state.wants_of.pop(app_id, None)
        if app is not None and not app.up_to_date[Phase.SCHEDULED]:
            app.explanation = None
    else:
        state.wants_of[app_id] = wanted.id
        if state.wants.get(wanted.id) != wanted:
            state.wants[wanted.id] = wanted
            state.wants_changed = True
    return effects


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
        if app is None or want_id_of(app) != explanation.want_id:
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
