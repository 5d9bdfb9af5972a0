"""How far a deployment may go: its policy as people give it, the pace of each app, and the traffic of new instances.

A policy stands in the query of the request, or in labels of the app that begin with `corral.deploy.`; the request wins.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.plan import FULL, Pace
from corral.frameworks.services.record_spec import Condition, Deployment, Instance, Policy
from corral.frameworks.services.state import App, Phase
from corral.lib.errors import Invalid, Unprocessable

DEADLINE = "deadline/"
LABELS = "corral.deploy."
FIELDS = ("deadline", "revert", "canary", "blueGreen", "paused")
MOST_DEADLINE_S = 1e7
MOST_WEIGHT = 100


def read_policy(query: Mapping[str, Sequence[str]]) -> Policy | None:
    """What a request says of it; None when it says nothing. Errors: `Invalid`."""
    given = {field: query[field][0] for field in FIELDS if field in query}
    if not given:
        return None
    try:
        return _make_policy(given)
    except ValueError as error:
        raise Invalid(f"query parameter {error}") from None


def read_policy_labels(labels: Iterable[Mapping[str, str]]) -> Policy:
    """What the labels of the apps say; where several do, the first. Errors: `Unprocessable` naming the label."""
    given: dict[str, str] = {}
    for each in labels:
        for field in FIELDS:
            if LABELS + field in each:
                given.setdefault(field, each[LABELS + field])
    try:
        return _make_policy(given)
    except ValueError as error:
        raise Unprocessable("Object is not valid", {"/labels": [f"{LABELS}{error}"]}) from None


def _make_policy(given: Mapping[str, str]) -> Policy:
    """Errors: `ValueError` whose text begins with the field."""
    deadline_s = 0.0
    if "deadline" in given:
        try:
            deadline_s = float(given["deadline"])
        except ValueError:
            deadline_s = -1.0
        if not 0 <= deadline_s <= MOST_DEADLINE_S:
            raise ValueError(f"deadline is {given['deadline']!r}, must be a number of seconds")
    canary = given.get("canary", "")
    if canary and _read_part(canary, 100) is None:
        raise ValueError(f"canary is {canary!r}, must be a number of instances of 1 or more, or a percentage as 10%")
    flags = {field: _read_flag(field, given[field]) for field in ("revert", "blueGreen", "paused") if field in given}
    if canary and flags.get("blueGreen"):
        raise ValueError("canary and blueGreen exclude each other; choose one")
    return Policy(
        deadline_s=deadline_s,
        revert=flags.get("revert", False),
        canary=canary,
        blue_green=flags.get("blueGreen", False),
        paused=flags.get("paused", False),
    )


def _read_flag(field: str, text: str) -> bool:
    if text.lower() not in ("", "true", "1", "false", "0"):
        raise ValueError(f"{field} is {text!r}, must be true or false")
    return text.lower() in ("", "true", "1")


def _read_part(text: str, whole: int) -> int | None:
    """A number, or a percentage of `whole` rounded up; None when it is neither, or nothing."""
    number = text.removesuffix("%")
    if not number.isascii() or not number.isdecimal() or not 0 < len(number) < 7 or int(number) < 1:
        return None
    if not text.endswith("%"):
        return int(number)
    return math.ceil(whole * int(number) / 100) if int(number) <= 100 else None


def read_share(text: str) -> int:
    """The percentage of traffic for new instances. Errors: `Invalid`."""
    if not text.isascii() or not text.isdecimal() or len(text) > 3 or int(text) > 100:
        raise Invalid(f"query parameter weight is {text!r}, must be a percentage from 0 to 100")
    return int(text)


def read_seen(text: str | None) -> str | None:
    """The version in a header If-Match, without its quotes."""
    if text is None:
        return None
    return text.strip().removeprefix("W/").strip('"')


def pace_of(deployment: Deployment, spec: AppSpec) -> Pace:
    """How far the app may go by now."""
    policy = deployment.policy
    if deployment.promoted or not (policy.canary or policy.blue_green):
        return FULL
    if policy.blue_green:
        return Pace(beside=True)
    return Pace(new=min(_read_part(policy.canary, spec.instances) or 1, spec.instances))


def score_of(app: App) -> int:
    """How near the app is to what is wanted: what counts is whether it grows."""
    wanted = 0 if app.record.stopping else app.spec.instances
    outdated = sum(len(bucket) for bucket in app.outdated)
    there = sum(len(bucket) for phase, bucket in enumerate(app.up_to_date) if phase != Phase.SCHEDULED)
    return min(len(app.up_to_date[Phase.RUNNING]), wanted) - outdated - max(0, there - wanted)


def weight_of(deployment: Deployment | None, app: App, instance: Instance) -> int:
    """The instance's part in the traffic of its app, 0 to 100, beside that of the app's other instances.

    All have 100 unless a deployment moves traffic by shares: then new and old instances together have theirs.
    """
    if deployment is None or deployment.share is None:
        return MOST_WEIGHT
    share = 100 if deployment.promoted else deployment.share
    new = max(1, _serving(app.up_to_date))
    old = max(1, _serving(app.outdated))
    weights = (share / new, (100 - share) / old)
    mine = weights[0] if instance.config == app.record.config else weights[1]
    return math.ceil(MOST_WEIGHT * mine / max(weights))


def _serving(side: tuple[dict[str, Instance], ...]) -> int:
    return sum(1 for i in side[Phase.RUNNING].values() if i.condition is Condition.RUNNING)
