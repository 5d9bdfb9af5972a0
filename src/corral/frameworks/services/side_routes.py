"""What the framework tells of itself over HTTP: who it is, how it is set up, its numbers, its log. Decides nothing.

Source: Marathon's contract, section 16, "System".
"""

from corral.frameworks.services.answers import NO_CACHE, Ask, Table, write_json
from corral.frameworks.services.command_spec import GetConfig, GetInfo, GetLeader, GetNumbers
from corral.frameworks.services.numbers import list_gauges, write_numbers
from corral.frameworks.services.reader import Reader, read_json
from corral.net.routes import Request, Response
from corral.net.verbosity import LEVELS, change_least, check_operator, write_levels
from corral.sdk.metrics import CONTENT_TYPE, write_metrics


def side_table(ask: Ask) -> Table:
    """The part of the front door that is about the framework. Shapes: where it shares a port with a master, `/metrics`
    and `/metrics/prometheus` are the master's.
    """
    door = _Side(ask)
    return (
        ("GET", "/v2/info", door.get_info),
        ("GET", "/v2/leader", door.get_leader),
        ("GET", "/v2/plugins", door.list_plugins),
        ("GET", "/v2/metrics", door.get_metrics),
        ("GET", "/ping", door.ping),
        ("GET", "/metrics", door.get_metrics),
        ("GET", "/metrics/prometheus", door.get_prometheus),
        ("GET", "/logging", door.get_levels),
        ("POST", "/logging", door.set_level),
        ("GET", "/config", door.get_config),
    )


class _Side:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def get_info(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetInfo()))

    async def get_leader(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetLeader()))

    async def list_plugins(self, request: Request) -> Response:
        return write_json({"plugins": []})

    async def ping(self, request: Request) -> Response:
        if request.headers.get("accept", "") == "application/json":
            return write_json("pong")
        return Response(body=b"pong", content_type="text/plain", headers=NO_CACHE)

    async def get_metrics(self, request: Request) -> Response:
        if "text/plain" in request.headers.get("accept", "") or "openmetrics" in request.headers.get("accept", ""):
            return await self.get_prometheus(request)
        return write_json(write_numbers(await self._ask(request, GetNumbers())))

    async def get_prometheus(self, request: Request) -> Response:
        gauges = list_gauges(await self._ask(request, GetNumbers()))
        return Response(body=write_metrics(gauges), content_type=CONTENT_TYPE, headers=NO_CACHE)

    async def get_levels(self, request: Request) -> Response:
        return write_json(write_levels())

    async def set_level(self, request: Request) -> Response:
        """Shapes: `{"level": "DEBUG", "durationSeconds": 60}`; whatever `logger` is named, there is but one."""
        check_operator(request.caller)
        reader = Reader(read_json(request.body))
        reader.text("logger", "ROOT")
        level = reader.text("level", "").upper()
        if level not in LEVELS:
            reader.refuse("level", f"must be one of {', '.join(LEVELS)}")
        duration = reader.whole("durationSeconds", 0)
        if duration < 0:
            reader.refuse("durationSeconds", "must be 0 or more")
        reader.finish()
        change_least(LEVELS[level], duration or None)
        return write_json(write_levels())

    async def get_config(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetConfig()))
