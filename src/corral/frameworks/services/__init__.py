"""The services framework: long-running apps kept at their number, under Marathon's API."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from msgspec.structs import replace

from corral.frameworks.services.core import Input, ServicesCore
from corral.frameworks.services.routes import routes
from corral.frameworks.services.spec import Config
from corral.net.routes import Route
from corral.sdk.feed import Feed
from corral.sdk.framework import Framework, introduce

__all__ = ["Config", "Input", "ServicesCore", "build"]


def build(config: Config, random: Random) -> Framework:
    """The framework as the sdk runs it. Shapes: `random` is where ids come from."""
    feed = Feed()
    info = introduce(config)
    if config.principal:
        info = replace(info, principal=config.principal)

    def front_door(ask: Callable[[Any], Awaitable[Any]]) -> list[Route]:
        leader = f"{config.scheme}://{config.address}"
        return routes(ask, feed, leader)

    return Framework(
        info=info, core=ServicesCore(config, random, info), routes=front_door,
        records="services/", feed=feed, webhook_secret_file=config.webhook_secret_file,
    )  # fmt: skip
