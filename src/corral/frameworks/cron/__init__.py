"""The cron framework: jobs that run when they are due or when others have succeeded, under Chronos' API."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from corral.frameworks.cron.core import CronCore, Input
from corral.frameworks.cron.cors_routes import allow_origin
from corral.frameworks.cron.dags.routes import dag_routes
from corral.frameworks.cron.routes import routes
from corral.frameworks.cron.spec import Config
from corral.net.routes import Route
from corral.sdk.framework import Framework, introduce
from corral.sdk.notify import MailServer
from corral.sdk.rights import guard

__all__ = ["Config", "CronCore", "Input", "build"]

FREE = frozenset({"/scheduler/jobs/plan", "/v1/scheduler/jobs/plan", "/corral/v1/dags/plan"})
"""What tells what would be, and changes nothing."""


def build(config: Config, random: Random) -> Framework:
    """The framework as the sdk runs it. Shapes: `random` is where ids come from."""
    mail = None
    if config.mail_from:
        mail = MailServer(
            server=config.mail_server,
            sender=config.mail_from,
            user=config.mail_user,
            password_file=config.mail_password_file,
            security=config.mail_security,
        )

    def front_door(ask: Callable[[Any], Awaitable[Any]]) -> list[Route]:
        guarded = guard([*routes(ask, config.cacert), *dag_routes(ask)], config.name, (config.role,), FREE)
        return allow_origin(guarded, config.allow_origin)

    return Framework(
        info=introduce(config), core=CronCore(config, random), routes=front_door, records="cron/", mail=mail,
        calendar=True,
    )  # fmt: skip
