"""How many calls a framework may make: a rate for each principal. Source: Mesos RateLimits."""

import msgspec


class Rate(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `qps` calls a second, None without bound; `capacity` calls wait at most, None without bound."""

    qps: float | None = None
    capacity: int | None = None


class RateLimits(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `rest` is one rate for all principals together that are not in `principals`, None for no bound."""

    principals: dict[str, Rate] = {}
    rest: Rate | None = None
