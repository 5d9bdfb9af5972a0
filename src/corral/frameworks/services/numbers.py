"""The framework's numbers, under the names that Marathon has for them since 1.7: for monitors that look for those.

Source: Marathon's documentation of its metrics.
"""

from collections.abc import Mapping

from corral.frameworks.services.state import Phase, State
from corral.frameworks.services.validate import parent_id
from corral.sdk.metrics import Gauge

HELP = {
    "apps.active": "apps and pods that are defined",
    "groups.active": "groups",
    "deployments.active": "deployments under way",
    "instances.running": "instances that run, healthy or not",
    "instances.staged": "instances that are launched and do not run yet",
    "instances.waiting": "instances that wait for resources, or for their backoff to pass",
    "instances.unreachable": "instances whose agent is silent",
}


def view_numbers(state: State) -> dict[str, float]:
    """Shapes: the keys of HELP."""
    apps = state.visible_apps()
    groups = set(state.groups)
    for app in apps:
        above = parent_id(app.record.spec.id)
        while above != "/" and above not in groups:
            groups.add(above)
            above = parent_id(above)

    def count(*phases: Phase) -> float:
        return float(sum(app.count(*phases) for app in state.apps.values()))

    return {
        "apps.active": float(len(apps)),
        "groups.active": float(len(groups - {"/"})),
        "deployments.active": float(len(state.deployments)),
        "instances.running": count(Phase.RUNNING, Phase.UNHEALTHY),
        "instances.staged": count(Phase.LAUNCHING),
        "instances.waiting": count(Phase.SCHEDULED),
        "instances.unreachable": count(Phase.UNREACHABLE, Phase.INACTIVE),
    }


def write_numbers(found: Mapping[str, float]) -> dict[str, object]:
    """In the layout that the JVM's metrics libraries have made usual."""
    gauges = {f"marathon.{name}.gauge": {"value": value} for name, value in found.items()}
    return {"version": "4.0.0", "gauges": gauges, "counters": {}, "histograms": {}, "meters": {}, "timers": {}}


def list_gauges(found: Mapping[str, float]) -> list[Gauge]:
    return [Gauge(f"marathon_{name.replace('.', '_')}", HELP[name], {"": value}) for name, value in found.items()]
