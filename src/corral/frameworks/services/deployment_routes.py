"""Deployments and what waits, over HTTP: Marathon's calls and our own for steered deployments. Decides nothing.

Source: Marathon's contract, sections 8, 10 and 16.
"""

from corral.frameworks.services.answers import NO_CACHE, Ask, Table, app_id_of, embed_of, write_json, write_result
from corral.frameworks.services.command_spec import (
    CancelDeployment,
    GetAvoided,
    GetDeployment,
    GetDeployments,
    GetEnded,
    GetQueue,
    PauseDeployment,
    PromoteDeployment,
    ResetDelay,
)
from corral.frameworks.services.pace import read_share
from corral.net.routes import Request, Response


def deployment_table(ask: Ask) -> Table:
    """The part of the front door that tells what is under way, and steers it."""
    door = _Deployments(ask)
    return (
        ("GET", "/v2/deployments", door.list_deployments),
        ("GET", "/v2/deployments/ended", door.list_ended),
        ("GET", "/v2/deployments/{id}", door.get_deployment),
        ("POST", "/v2/deployments/{id}/pause", door.pause_deployment),
        ("POST", "/v2/deployments/{id}/resume", door.resume_deployment),
        ("POST", "/v2/deployments/{id}/promote", door.promote_deployment),
        ("DELETE", "/v2/deployments/{id}", door.cancel_deployment),
        ("GET", "/v2/queue", door.list_queue),
        ("DELETE", "/v2/queue/{id*}/delay", door.reset_delay),
        ("GET", "/v2/avoided", door.list_avoided),
    )


class _Deployments:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def list_deployments(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetDeployments()))

    async def list_ended(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetEnded()))

    async def get_deployment(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetDeployment(id=request.params["id"])))

    async def pause_deployment(self, request: Request) -> Response:
        return write_json(await self._ask(request, PauseDeployment(id=request.params["id"])))

    async def resume_deployment(self, request: Request) -> Response:
        return write_json(await self._ask(request, PauseDeployment(id=request.params["id"], paused=False)))

    async def promote_deployment(self, request: Request) -> Response:
        command = PromoteDeployment(id=request.params["id"], share=read_share(request.first("weight", "100")))
        return write_json(await self._ask(request, command))

    async def cancel_deployment(self, request: Request) -> Response:
        result = await self._ask(request, CancelDeployment(id=request.params["id"], force=request.flag("force")))
        return Response(status=202, headers=NO_CACHE) if result is None else write_result(result)

    async def list_queue(self, request: Request) -> Response:
        return write_json({"queue": await self._ask(request, GetQueue(embed=embed_of(request)))})

    async def reset_delay(self, request: Request) -> Response:
        await self._ask(request, ResetDelay(id=app_id_of(request)))
        return Response(status=204, headers=NO_CACHE)

    async def list_avoided(self, request: Request) -> Response:
        return write_json({"avoided": await self._ask(request, GetAvoided())})
