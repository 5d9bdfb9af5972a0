"""Lets balancers take an instance out before it is killed: which ones have to, how long they have, when all did.

While no balancer that serves the app follows the registry, nothing waits. Who follows and who has drained what is soft:
after a new start balancers come again, and what was leaving is killed at the instant that its record names.
"""

import re
from collections.abc import Mapping

from corral.frameworks.services.record_spec import Condition, Instance
from corral.frameworks.services.state import App, State

LEAVE = "leave/"
DRAIN_LABEL = "CORRAL_DRAIN_SECONDS"
MOST_DRAIN_S = 3600.0

_GROUP = re.compile(r"HAPROXY_(?:\d+_)?GROUP")


def groups_of(labels: Mapping[str, str]) -> frozenset[str]:
    """The groups of balancers that shall serve an app."""
    named = (value for key, value in labels.items() if _GROUP.fullmatch(key))
    return frozenset(group.strip() for text in named for group in text.split(",") if group.strip())


def balancers_of(state: State, app: App) -> frozenset[str]:
    """Those that serve the app now."""
    followed = state.discovery.balancers
    groups = groups_of(app.spec.labels) if followed else frozenset()
    if not groups:
        return frozenset()
    return frozenset(name for name, served in followed.items() if "*" in served or groups.intersection(served))


def leave_s(state: State, app: App, instance: Instance) -> float:
    """How long an instance that is to end may stay for its connections; 0 when nothing sends it any."""
    if instance.condition is not Condition.RUNNING or not balancers_of(state, app):
        return 0.0
    text = app.spec.labels.get(DRAIN_LABEL, "")
    try:
        wanted = float(text) if text else state.config.drain_s
    except ValueError:
        wanted = state.config.drain_s
    return min(max(wanted, 0.0), MOST_DRAIN_S) if wanted == wanted else 0.0


def is_drained(state: State, app: App, instance: Instance) -> bool:
    """Whether no balancer that serves the app is still to take this one out."""
    return balancers_of(state, app) <= state.discovery.drained.get(instance.id, set())
