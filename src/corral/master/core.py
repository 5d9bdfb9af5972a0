"""The deciding half of the master: every input goes to the family that knows what it means."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from corral.lib.errors import CorralError
from corral.master import (
    agents,
    allocation,
    cluster_view,
    drains,
    executors,
    frameworks,
    inverse,
    losses,
    maintenance,
    numbers,
    offers,
    operate,
    operations,
    reconcile,
    recovery,
    role_views,
    roles,
    secrets,
    tasks,
    throttle,
    timers,
    views,
    wants,
    watch,
    watchdog,
)
from corral.master.entries import FrameworkEntry
from corral.master.spec import (
    AgentClosed,
    AgentOpened,
    AgentReported,
    Command,
    GetCluster,
    GetExplanations,
    GetFrameworks,
    GetMetrics,
    GetNodes,
    GetRoles,
    GetSources,
    GetTasks,
    GetTrial,
    Input,
    MasterConfig,
    PrepareViews,
    SchedulerCall,
    SchedulerClosed,
    SubscribeStream,
    WatchCluster,
    WatcherClosed,
)
from corral.master.state import MasterState
from corral.model import calls
from corral.model import maintenance as asked
from corral.model.ids import FrameworkId
from corral.model.operator import (
    Operate,
    RemoveQuota,
    RemoveRole,
    SetQuota,
    SetRole,
    Teardown,
    UpdateQuota,
    UpdateWeights,
)
from corral.runtime.core import Asked, Effect, Loaded, Refuse, Reply, Tick

__all__ = ["Input", "MasterCore"]


_READS = (
    GetCluster, GetExplanations, GetFrameworks, GetMetrics, GetNodes, GetRoles, GetSources, GetTasks, GetTrial,
    PrepareViews, WatchCluster,
)  # fmt: skip


CHECKS_PER_DEEP_ONE = 100


class MasterCore:
    """Shapes: `random` decides ids and ties, so equal seeds and inputs give equal effects."""

    reads = tuple(command for command in _READS if command is not WatchCluster)

    def __init__(self, config: MasterConfig, random: Random, stopwatch: Callable[[], float] | None = None) -> None:
        self.state = MasterState(config, random, stopwatch)
        self._checks = 0

    def handle(self, input: Input, now: float) -> Sequence[Effect]:
        state = self.state
        if state.shown and not (isinstance(input, Asked) and isinstance(input.command, _READS)):
            state.shown.clear()
        effects = self._decide(input, now)
        if state.draining or state.to_review:
            effects = [*effects, *drains.settle(state, now), *inverse.ask(state, now)]
        return [*effects, *watch.tell_news(state)] if state.news else effects

    def _decide(self, input: Input, now: float) -> Sequence[Effect]:
        match input:
            case Asked():
                return ask(self.state, input.ask, input.command, now)
            case AgentReported():
                return agents.report(self.state, input, now)
            case Tick():
                return tick(self.state, input.name, now)
            case AgentOpened():
                return agents.open_session(self.state, input)
            case AgentClosed():
                return agents.close_session(self.state, input.session, input.why, now)
            case SchedulerClosed():
                return frameworks.disconnect(self.state, input.stream, input.why, now)
            case Loaded():
                return recovery.load(self.state, input, now)
            case WatcherClosed():
                return watch.close_watch(self.state, input.stream)

    def invariants(self) -> None:
        """The allocator's own laws take long: they are looked at now and then."""
        self.state.invariants()
        if self._checks % CHECKS_PER_DEEP_ONE == 0:
            self.state.allocator.invariants()
        self._checks += 1


def ask(state: MasterState, ask: int, command: Command, now: float) -> list[Effect]:
    """A command's effects, its reply among them.

    Errors: `CorralError` before anything has changed.
    """
    value: Any = None
    effects: list[Effect] = []
    match command:
        case Operate():
            return operate.operate(state, ask, command)
        case SchedulerCall():
            framework = frameworks.find(state, _caller(command.call), command)
            state.counts[type(command.call).__name__] += 1
            held = throttle.hold(state, framework, ask, command, now)
            if held is not None:
                return held
            effects = call(state, framework, command.call, now)
        case SubscribeStream():
            effects = frameworks.subscribe(state, command, now)
            state.counts["Subscribe" if command.call.info.id is None else "Resubscribe"] += 1
        case SetRole():
            effects = roles.set_role(state, command)
        case RemoveRole():
            effects = roles.remove_role(state, command)
        case UpdateWeights():
            effects = roles.update_weights(state, command)
        case UpdateQuota():
            effects = roles.update_quota(state, command)
        case SetQuota():
            effects = roles.set_quota(state, command)
        case RemoveQuota():
            effects = roles.remove_quota(state, command)
        case asked.DrainAgent():
            effects = drains.drain(state, command, now)
        case asked.DeactivateAgent():
            effects = drains.deactivate(state, command)
        case asked.ReactivateAgent():
            effects = drains.reactivate(state, command)
        case asked.MarkAgentGone():
            effects = drains.mark_gone(state, command, now)
        case asked.UpdateSchedule():
            effects = maintenance.update_schedule(state, command, now)
        case asked.StartMaintenance():
            effects = maintenance.start(state, command, now)
        case asked.StopMaintenance():
            effects = maintenance.stop(state, command, now)
        case Teardown():
            effects = frameworks.tear_down(state, command, now)
        case WatchCluster():
            value, effects = watch.open_watch(state, command)
        case PrepareViews():
            value = cluster_view.prepare(state)
        case GetSources():
            value = secrets.sources(state, command)
        case GetNodes():
            value = views.nodes(state)
        case GetRoles():
            value = role_views.roles(state, command)
        case GetFrameworks():
            value = views.frameworks(state, now)
        case GetTasks():
            value = views.tasks(state, command)
        case GetExplanations():
            value = views.explanations(state, command)
        case GetTrial():
            value = views.trial(state, now)
        case GetMetrics():
            value = numbers.metrics(state, now)
        case GetCluster():
            value = cluster_view.cluster(state, command)
    return [Reply(ask, value), *effects]


def release(state: MasterState, lane: str, now: float) -> list[Effect]:
    """A call that was held back has its turn; what forbids it now is its answer."""
    found, effects = throttle.release(state, lane, now)
    if found is None:
        return effects
    ask, command = found
    try:
        framework = frameworks.find(state, _caller(command.call), command)
        done = call(state, framework, command.call, now)
    except CorralError as error:
        return [Refuse(ask, error), *effects]
    return [Reply(ask, None), *done, *effects]


def _caller(call: calls.Call) -> FrameworkId:
    match call:
        case calls.Subscribe() | calls.UpdateFramework():
            return call.info.id or FrameworkId("")
        case _:
            return call.framework_id


def call(state: MasterState, framework: FrameworkEntry, call: calls.Call, now: float) -> list[Effect]:
    """The effects of one call of a subscribed framework."""
    match call:
        case calls.Acknowledge():
            return tasks.acknowledge(state, framework, call, now)
        case calls.Accept():
            return offers.accept(state, framework, call, now)
        case calls.Decline():
            return offers.decline(state, framework, call, now)
        case calls.AcceptInverseOffers() | calls.DeclineInverseOffers():
            return inverse.answer(state, framework, call, now)
        case calls.Kill():
            found = tasks.kill(state, framework, call)
            return reconcile.answer_kill(state, framework, call, now) if found is None else found
        case calls.Request():
            return wants.request(state, framework, call, now)
        case calls.Revive():
            return frameworks.revive(state, framework, call)
        case calls.Suppress():
            return frameworks.suppress(state, framework, call)
        case calls.Reconcile():
            return reconcile.reconcile(state, framework, call, now)
        case calls.AcknowledgeOperation():
            return operations.acknowledge(framework, call)
        case calls.ReconcileOperations():
            return operations.reconcile(state, framework, call)
        case calls.Teardown():
            return frameworks.teardown(state, framework, now)
        case calls.UpdateFramework():
            return frameworks.update_framework(state, framework, call, now)
        case calls.Message():
            return executors.send_message(state, framework, call)
        case calls.Shutdown():
            return executors.shut_down(state, framework, call)
        case calls.Subscribe():
            return []


def tick(state: MasterState, name: str, now: float) -> list[Effect]:
    """What a named timer is for."""
    kind, slash, rest = name.partition("/")
    match kind + slash:
        case timers.ALLOCATE:
            return allocation.run(state, now)
        case timers.AGAIN:
            return allocation.run_late(state, now)
        case timers.HEARTBEAT:
            return frameworks.beat(state, rest)
        case timers.AGENTS:
            return [*losses.watch(state, now), *drains.forget_gone(state, now), *watchdog.look(state, now)]
        case timers.MAINTENANCE:
            return maintenance.pass_time(state, now)
        case timers.WATCH:
            return watch.beat(state)
        case timers.OFFERS:
            return offers.expire(state, now)
        case timers.FILTERS:
            return offers.end_filters(state, now)
        case timers.EXPLAIN:
            return wants.explain_late(state, now)
        case timers.FAILOVER:
            return frameworks.fail_over_late(state, FrameworkId(rest), now)
        case timers.SHUTDOWN:
            return frameworks.give_up_orphans(state, FrameworkId(rest))
        case timers.THROTTLE:
            return release(state, rest, now)
        case timers.SESSION:
            return agents.time_out_session(state, rest)
        case _:
            raise AssertionError(f"no timer is called {name}")
