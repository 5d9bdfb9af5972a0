"""Marathon's REST API of pods: each handler reads the dialect, asks the core, writes the dialect, and decides nothing.

Source: Marathon's contract, sections 6 and 16.
"""

from collections.abc import Sequence
from typing import Any

from corral.frameworks.services.answers import Ask
from corral.frameworks.services.app_spec import SPEC_FIELDS
from corral.frameworks.services.command_spec import (
    AppUpdate,
    CreateApp,
    DeleteApp,
    GetPod,
    GetPods,
    KillPod,
    UpdateApps,
)
from corral.frameworks.services.names import read_version
from corral.frameworks.services.pace import read_policy, read_seen
from corral.frameworks.services.pod_dialect import read_pod
from corral.frameworks.services.reader import Reader, read_json
from corral.frameworks.services.validate import canonical_id
from corral.lib.errors import Invalid
from corral.net.routes import Request, Response, json_response


def pod_table(ask: Ask) -> Sequence[tuple[str, str, Any]]:
    """The pods' part of the front door."""
    door = _Pods(ask)
    return (
        ("HEAD", "/v2/pods", door.probe),
        ("POST", "/v2/pods", door.create_pod),
        ("GET", "/v2/pods", door.list_pods),
        ("GET", "/v2/pods::status", door.list_statuses),
        ("GET", "/v2/pods/{id*}::status", door.get_status),
        ("GET", "/v2/pods/{id*}::versions/{version}", door.get_version),
        ("GET", "/v2/pods/{id*}::versions", door.list_versions),
        ("DELETE", "/v2/pods/{id*}::instances/{instance}", door.kill_instance),
        ("DELETE", "/v2/pods/{id*}::instances", door.kill_instances),
        ("GET", "/v2/pods/{id*}", door.get_pod),
        ("PUT", "/v2/pods/{id*}", door.update_pod),
        ("DELETE", "/v2/pods/{id*}", door.delete_pod),
    )


class _Pods:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def probe(self, request: Request) -> Response:
        return Response()

    async def list_pods(self, request: Request) -> Response:
        return json_response(await self._ask(request, GetPods()))

    async def list_statuses(self, request: Request) -> Response:
        return json_response(await self._ask(request, GetPods(status=True)))

    async def create_pod(self, request: Request) -> Response:
        spec, unknown = read_pod(read_json(request.body))
        command = CreateApp(
            spec=spec, force=request.flag("force"), policy=read_policy(request.query), ignored=unknown,
            client=request.peer, uri=request.path,
        )  # fmt: skip
        result, _ = await self._ask(request, command)
        headers = {"Location": f"/v2/pods{spec.id}", "Marathon-Deployment-Id": result.deployment_id}
        return json_response(await self._ask(request, GetPod(id=spec.id)), status=201, headers=headers)

    async def get_pod(self, request: Request) -> Response:
        return json_response(await self._ask(request, GetPod(id=_id(request))))

    async def get_status(self, request: Request) -> Response:
        return json_response(await self._ask(request, GetPod(id=_id(request), what="status")))

    async def list_versions(self, request: Request) -> Response:
        return json_response(await self._ask(request, GetPod(id=_id(request), what="versions")))

    async def get_version(self, request: Request) -> Response:
        version = read_version(request.params["version"])
        return json_response(await self._ask(request, GetPod(id=_id(request), what="version", version=version)))

    async def update_pod(self, request: Request) -> Response:
        pod_id = _id(request)
        spec, unknown = read_pod(read_json(request.body), pod_id=pod_id)
        if spec.id != pod_id:
            raise Invalid(f"the pod's id is {spec.id} and the path names {pod_id}; a pod cannot be renamed")
        given = tuple(field for field in SPEC_FIELDS if field != "id")
        command = UpdateApps(
            updates=(AppUpdate(id=pod_id, spec=spec, given=given),), partial=False, force=request.flag("force"),
            policy=read_policy(request.query), seen=read_seen(request.headers.get("if-match")), single=True, pod=True,
            ignored=unknown, client=request.peer, uri=request.path,
        )  # fmt: skip
        result = await self._ask(request, command)
        headers = {"Marathon-Deployment-Id": result.deployment_id}
        if result.created:
            headers["Location"] = f"/v2/pods{pod_id}"
        status = 201 if result.created else 200
        return json_response(await self._ask(request, GetPod(id=pod_id)), status=status, headers=headers)

    async def delete_pod(self, request: Request) -> Response:
        command = DeleteApp(
            id=_id(request), force=request.flag("force"), pod=True, client=request.peer, uri=request.path
        )
        result = await self._ask(request, command)
        return Response(status=202, headers={"Marathon-Deployment-Id": result.deployment_id})

    async def kill_instance(self, request: Request) -> Response:
        command = KillPod(id=_id(request), instances=(request.params["instance"],), strict=True)
        return json_response((await self._ask(request, command))[0])

    async def kill_instances(self, request: Request) -> Response:
        reader = Reader({"instances": read_json(request.body)})
        instances = reader.texts("instances")
        reader.finish()
        return json_response(await self._ask(request, KillPod(id=_id(request), instances=instances)))


def _id(request: Request) -> str:
    return canonical_id("/" + request.params["id"])
