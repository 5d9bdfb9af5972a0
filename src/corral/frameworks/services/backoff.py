"""How long an app that fails is left alone before it is launched again.

The first failure waits `backoffSeconds`, each further one `backoffFactor` times longer, up to
`maxLaunchDelaySeconds`; a quiet time of that length forgets all. Source: Marathon's contract, section 10.

Deviates: the quiet time counts from the end of the delay, not from its start; a delay at its bound would otherwise be
forgotten in the moment in which it ends.
"""

from corral.frameworks.services.state import App, Delay


def charge(app: App, now: float) -> None:
    """Count a failure of the present definition."""
    spec = app.spec
    most_s = float(spec.most_backoff_s)
    delay = _current(app, now)
    if delay is None:
        app.delay = Delay(app.record.config, min(float(spec.backoff_s), most_s), now)
    else:
        delay.current_s = min(delay.current_s * spec.backoff_factor, most_s)
        delay.reference_at = now


def advance(app: App, now: float) -> None:
    """A launch goes on: the delay, if there is one, counts from here."""
    delay = _current(app, now)
    if delay is not None:
        delay.reference_at = now


def wait_s(app: App, now: float) -> float:
    """Seconds until the next launch is allowed; 0 when it is."""
    delay = _current(app, now)
    return max(0.0, delay.deadline_at - now) if delay is not None else 0.0


def is_delayed(app: App, now: float) -> bool:
    """Whether a delay is remembered at all."""
    return _current(app, now) is not None


def forget(app: App) -> None:
    app.delay = None


def _current(app: App, now: float) -> Delay | None:
    delay = app.delay
    if delay is None:
        return None
    if delay.config != app.record.config or now > delay.deadline_at + app.spec.most_backoff_s:
        app.delay = None
    return app.delay
