"""Pods as people ask for them, beyond what they share with apps: their instances ended by name."""

from corral.frameworks.services.command_spec import KillPod
from corral.frameworks.services.commands import need_pod
from corral.frameworks.services.pod_views import view_instance
from corral.frameworks.services.record_spec import Goal, Instance
from corral.frameworks.services.state import State
from corral.lib.errors import NotFound
from corral.runtime.core import Effect, Reply


def kill_instances(state: State, ask: int, command: KillPod) -> list[Effect]:
    """End these instances, which are then replaced. Errors: `NotFound`."""
    app = need_pod(state, command.id)
    found: list[Instance] = []
    for instance_id in command.instances:
        instance = app.instances.get(instance_id)
        if instance is not None and instance.staged_at is not None and instance.goal is Goal.RUNNING:
            found.append(instance)
        elif command.strict:
            raise NotFound(
                f"Pod '{command.id}' has no instance {instance_id}; GET /v2/pods{command.id}::status lists them"
            )
    for instance in found:
        state.sentenced[instance.id] = "somebody asked for its end"
    return [Reply(ask, [view_instance(app, instance) for instance in found])]
