"""The services framework: long-running apps kept at their number, under Marathon's API."""

from functools import partial
from random import Random

from msgspec.structs import replace

from corral.frameworks.services.core import Input, ServicesCore
from corral.frameworks.services.routes import routes
from corral.frameworks.services.spec import Config
from corral.sdk.feed import Feed
from corral.sdk.framework import Framework, introduce

__all__ = ["Config", "Input", "ServicesCore", "build"]


def build(config: Config, random: Random) -> Framework:
    """The framework as the sdk runs it. Shapes: `random` is where ids come from."""
    feed = Feed()
    info = introduce(config)
    if config.reserved_role not in info.roles:
        info = replace(info, roles=(*info.roles, config.reserved_role))
    if config.principal:
        info = replace(info, principal=config.principal)
    return Framework(
        info=info, core=ServicesCore(config, random), routes=partial(routes, feed=feed),
        records="services/", feed=feed, webhook_secret_file=config.webhook_secret_file,
    )  # fmt: skip
