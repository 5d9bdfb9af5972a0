"""The batch framework: jobs that are run once, as soon as there is room, in great numbers."""

from functools import partial
from random import Random

from corral.frameworks.batch.core import BatchCore, Input
from corral.frameworks.batch.routes import routes
from corral.frameworks.batch.spec import Config
from corral.model.framework import Capability, FrameworkInfo
from corral.sdk.feed import Feed
from corral.sdk.framework import Framework

__all__ = ["BatchCore", "Config", "Input", "build"]


def build(config: Config, random: Random) -> Framework:
    """The framework as the sdk runs it. Shapes: `random` is where ids come from."""
    info = FrameworkInfo(
        user=config.user,
        name=config.name,
        failover_timeout_s=config.failover_timeout_s,
        checkpoint=True,
        roles=(config.role,),
        hostname=config.hostname or None,
        webui_url=f"{config.scheme}://{config.address}/ui/",
        capabilities=(Capability.PARTITION_AWARE, Capability.TASK_KILLING_STATE, Capability.MULTI_ROLE),
    )
    feed = Feed()
    core = BatchCore(config, random)
    return Framework(info=info, core=core, routes=partial(routes, config, feed), records="batch/", feed=feed)
