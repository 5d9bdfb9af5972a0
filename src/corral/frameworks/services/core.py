"""The services framework: keeps every app at its number of instances, through any change of what is wanted.

`handle` only says which family an input belongs to; `upkeep.settle` then looks at whatever the input touched.
Source: DESIGN, frameworks; Marathon's contract.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec

from corral.frameworks.services import (
    commands,
    discovery,
    elastic,
    groups,
    history,
    numbers,
    offers,
    planning,
    pod_views,
    pods,
    recovery,
    rights,
    roles,
    scaling_spec,
    signals,
    steering,
    updates,
    upkeep,
    views,
    webhooks,
)
from corral.frameworks.services.command_spec import (
    READS,
    Bound,
    CancelDeployment,
    Command,
    CreateApp,
    CreateGroup,
    DeleteApp,
    DeleteGroup,
    GetApp,
    GetApps,
    GetAvoided,
    GetConfig,
    GetDeployment,
    GetDeployments,
    GetEnded,
    GetGroup,
    GetGroupVersion,
    GetGroupVersions,
    GetInfo,
    GetLeader,
    GetNumbers,
    GetPod,
    GetPods,
    GetQueue,
    GetTasks,
    GetVersion,
    GetVersions,
    KillPod,
    KillTasks,
    PatchGroup,
    PauseDeployment,
    PlanApps,
    PromoteDeployment,
    ResetDelay,
    RestartApp,
    UpdateApps,
    UpdateGroup,
)
from corral.frameworks.services.discovery_spec import (
    Drained,
    GetRegistry,
    GetTraffic,
    ReportTraffic,
    SecretChanged,
    WatchBalancer,
)
from corral.frameworks.services.draining import LEAVE
from corral.frameworks.services.events import refuse, take_heard, tell_message
from corral.frameworks.services.pace import DEADLINE
from corral.frameworks.services.record_spec import Condition
from corral.frameworks.services.scaling_spec import GetScaling, GetUsage, Push, Resize, SetScaling
from corral.frameworks.services.spec import Config
from corral.frameworks.services.state import State, task_ids_of
from corral.frameworks.services.webhook_spec import AddWebhook, GetWebhooks, RemoveWebhook
from corral.lib.errors import CorralError, NotFound
from corral.model import calls, events
from corral.model.framework import FrameworkInfo
from corral.model.ids import TaskId
from corral.runtime.core import Asked, Effect, Loaded, Reply, Tick
from corral.sdk import node_records, notices
from corral.sdk.effects import Measured, Notified, Signalled
from corral.sdk.feed import Followed
from corral.sdk.scheduler import CallFailed, Disconnected

Input = (
    Loaded | Tick | Asked[Command] | Followed | Disconnected | CallFailed | events.Subscribed | events.Offers
    | events.Rescind | events.Update | events.Message | events.Explanations | events.Failure | events.Error
    | events.Heartbeat | Measured | Notified | Signalled
)  # fmt: skip
"""Everything that the loop of this framework may be told; some of it the session around the core answers alone."""


class ServicesCore:
    """The deciding half of the services framework."""

    __slots__ = ("state",)
    reads = READS

    def __init__(self, config: Config, random: Random, info: FrameworkInfo | None = None) -> None:
        """Shapes: `info` is what the framework subscribes with, None for the least of it."""
        self.state = State(config, random, info)

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        state = self.state
        if state.heard is None:
            return [*self._decide(input, now), *upkeep.settle(state, now)]
        try:
            effects = [*self._decide(input, now), *upkeep.settle(state, now)]
        except CorralError as error:
            if not isinstance(input, Asked):
                raise
            return refuse(state, input.ask, input.command, error, now)
        return [*effects, *take_heard(state, now)]

    def invariants(self) -> None:
        self.state.invariants()

    def take_forbidden(self, failed: CallFailed, now: float) -> Sequence[Effect]:
        """The framework may not be in some of the roles that it wanted."""
        return [*roles.take_refusal(self.state, failed), *upkeep.settle(self.state, now)]

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        for app in self.state.apps.values():
            for instance in app.instances.values():
                if instance.condition is not Condition.SCHEDULED:
                    for task_id in task_ids_of(instance):
                        yield calls.ReconcileTask(task_id=task_id, agent_id=instance.agent_id)

    def is_live(self, task_id: TaskId) -> bool:
        return updates.find(self.state, task_id) is not None

    def _decide(self, input: Any, now: float) -> list[Effect]:
        state = self.state
        match input:
            case events.Update():
                return updates.update(state, input, now)
            case events.Offers():
                return offers.take_offers(state, input, now)
            case Asked():
                return self._command(input.ask, input.command, now)
            case Tick(name=upkeep.WORK):
                return offers.work_off(state, now)
            case Tick(name=offers.RESERVED):
                return roles.revive_reserved(state)
            case Tick(name=offers.WANTS):
                return offers.say_wants(state)
            case Tick(name=upkeep.SWEEP):
                return upkeep.sweep(state, now)
            case Tick(name=name) if name.startswith(offers.DELAY):
                state.restless[name.removeprefix(offers.DELAY)] = None
                return []
            case Tick(name=name) if name.startswith(upkeep.UNREACHABLE):
                return upkeep.unreachable_tick(state, name.removeprefix(upkeep.UNREACHABLE), now)
            case Tick(name=node_records.KEEP | node_records.FADE as name):
                return state.node_memory.tick(name, now)
            case Tick(name=scaling_spec.MEASURE):
                return elastic.tick(state, now)
            case Measured():
                return elastic.measured(state, input, now)
            case Tick(name=name) if name.startswith(DEADLINE):
                return steering.deadline_tick(state, name.removeprefix(DEADLINE), now)
            case Tick(name=name) if name.startswith(upkeep.FENCE):
                return upkeep.fence_tick(state, name, now)
            case Tick(name=name) if name.startswith(LEAVE):
                return discovery.leave_tick(state, name.removeprefix(LEAVE), now)
            case events.Explanations():
                return offers.take_explanations(state, input)
            case events.Failure():
                return offers.lose_agent(state, input)
            case events.Rescind():
                return updates.rescind(state, input)
            case events.InverseOffers():
                return updates.take_inverse_offers(input)
            case events.Message():
                tell_message(state, input)
                return []
            case Followed(by_anybody=by_anybody):
                state.followed = by_anybody
                state.listen()
                return []
            case Signalled():
                return signals.signalled(state, input)
            case Tick(name=name) if name.startswith(signals.SIGNAL):
                return signals.tick(state, TaskId(name.removeprefix(signals.SIGNAL)))
            case Notified():
                return notices.notified(state.outbox, input)
            case Tick(name=name) if name.startswith(notices.NOTICE):
                return notices.retry(state.outbox, name.removeprefix(notices.NOTICE))
            case events.Subscribed():
                return updates.subscribed(state, input)
            case Disconnected():
                return updates.disconnected(state)
            case Loaded():
                return recovery.load(state, input, now)
            case _:
                return []

    def _command(self, ask: int, command: Command, now: float) -> list[Effect]:
        state = self.state
        match command:
            case Bound(command=meant):
                rights.check(state, command)
                return self._command(ask, meant, now)
            case CreateApp():
                return commands.create(state, ask, command, now)
            case UpdateApps():
                return commands.update(state, ask, command, now)
            case DeleteApp():
                return commands.delete(state, ask, command, now)
            case RestartApp():
                return commands.restart(state, ask, command, now)
            case CreateGroup():
                return groups.create_group(state, ask, command, now)
            case UpdateGroup():
                return groups.update_group(state, ask, command, now)
            case PatchGroup():
                return groups.patch_group(state, ask, command, now)
            case DeleteGroup():
                return groups.delete_group(state, ask, command, now)
            case KillTasks():
                return commands.kill_tasks(state, ask, command, now)
            case ResetDelay():
                return commands.reset_delay(state, ask, command, now)
            case GetUsage() | GetScaling() | SetScaling() | Resize() | Push():
                return elastic.command(state, ask, command, now)
            case KillPod():
                return pods.kill_instances(state, ask, command)
            case PauseDeployment():
                return steering.pause(state, ask, command)
            case PromoteDeployment():
                return steering.promote(state, ask, command)
            case CancelDeployment():
                return commands.cancel_deployment(state, ask, command, now)
            case AddWebhook() | RemoveWebhook() | GetWebhooks():
                return webhooks.command(state, ask, command, now)
            case GetRegistry() | WatchBalancer() | Drained() | ReportTraffic() | GetTraffic() | SecretChanged():
                return discovery.command(state, ask, command, now)
            case _:
                return [Reply(ask, self._view(command, now))]

    def _view(self, command: Command, now: float) -> Any:
        state = self.state
        match command:
            case GetApps():
                commands.need_group(state, command.below)
                return views.view_apps(state, command, now)
            case GetApp():
                embed = views.read_embed(command.embed) | {"counts", "tasks", "lastTaskFailure", "deployments"}
                return views.view_app(state, commands.need_app(state, command.id), embed, now)
            case GetVersions():
                app = commands.need_app(state, command.id)
                return sorted([app.record.version, *state.versions.get(command.id, ())], reverse=True)
            case GetVersion():
                return views.view_version(state, commands.need_app(state, command.id), command.version)
            case GetTasks():
                if command.app is not None:
                    commands.need_app(state, command.app)
                commands.need_group(state, command.below or "/")
                if command.as_text:
                    return views.write_text(state, command)
                return views.view_tasks(state, views.select_tasks(state, command))
            case GetQueue():
                return views.view_queue(state, command, now)
            case GetAvoided():
                return views.view_avoided(state, now)
            case GetDeployments():
                return views.view_deployments(state)
            case GetGroup():
                group = views.view_group(state, command, now)
                if group is None:
                    raise NotFound(f"Group '{command.id}' does not exist")
                return group
            case GetPods():
                return pod_views.view_pods(state, command, now)
            case GetPod():
                return pod_views.view_pod(state, command, now)
            case GetDeployment():
                return steering.view_deployment(state, command.id)
            case GetEnded():
                return [steering.view_outcome(o) for o in reversed(state.outcomes.values())]
            case GetGroupVersions():
                return history.view_group_versions(state, command.id, now)
            case GetGroupVersion():
                return history.view_group_version(state, command.id, command.version, now)
            case GetInfo():
                return views.view_info(state)
            case GetNumbers():
                return numbers.view_numbers(state)
            case GetConfig():
                return msgspec.to_builtins(state.config)
            case PlanApps():
                return planning.view_wants(state, command, now)
            case GetLeader():
                return {"leader": state.config.address}
            case _:
                raise NotFound(f"command {type(command).__name__} is not known to the services framework")
