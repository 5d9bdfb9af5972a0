"""The batch framework: jobs that are run once, as soon as there is room, in great numbers."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from corral.frameworks.batch.core import BatchCore, Input
from corral.frameworks.batch.routes import routes
from corral.frameworks.batch.spec import Config
from corral.net.routes import Route
from corral.sdk.feed import Feed
from corral.sdk.framework import Framework, introduce
from corral.sdk.rights import guard

__all__ = ["BatchCore", "Config", "Input", "build"]

FREE = frozenset({"/v1/batch/query", "/v1/batch/wait"})
"""What only looks."""


def build(config: Config, random: Random) -> Framework:
    """The framework as the sdk runs it. Shapes: `random` is where ids come from."""
    feed = Feed()
    core = BatchCore(config, random)

    def front_door(ask: Callable[[Any], Awaitable[Any]]) -> list[Route]:
        return guard(routes(config, feed, ask), config.name, (config.role,), FREE)

    return Framework(info=introduce(config), core=core, routes=front_door, records="batch/", feed=feed)
