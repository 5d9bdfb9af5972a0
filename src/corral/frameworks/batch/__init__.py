"""The batch framework: jobs that are run once, as soon as there is room, in great numbers."""

from functools import partial
from random import Random

from corral.frameworks.batch.core import BatchCore, Input
from corral.frameworks.batch.routes import routes
from corral.frameworks.batch.spec import Config
from corral.sdk.feed import Feed
from corral.sdk.framework import Framework, introduce

__all__ = ["BatchCore", "Config", "Input", "build"]


def build(config: Config, random: Random) -> Framework:
    """The framework as the sdk runs it. Shapes: `random` is where ids come from."""
    feed = Feed()
    core = BatchCore(config, random)
    return Framework(
        info=introduce(config), core=core, routes=partial(routes, config, feed), records="batch/", feed=feed
    )
