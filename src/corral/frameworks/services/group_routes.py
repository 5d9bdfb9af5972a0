"""Marathon's REST API of groups: each handler reads the dialect, asks the core, writes the dialect, decides nothing.

Source: Marathon's contract, sections 5 and 16.
"""

from corral.frameworks.services.answers import Ask, Table, embed_of, group_id_of, headers_of, write_json, write_result
from corral.frameworks.services.command_spec import (
    CreateGroup,
    DeleteGroup,
    GetApps,
    GetGroup,
    GetGroupVersion,
    GetGroupVersions,
    GroupUpdate,
    PatchGroup,
    Result,
    UpdateGroup,
)
from corral.frameworks.services.names import read_version
from corral.frameworks.services.pace import read_policy
from corral.frameworks.services.reader import read_json
from corral.frameworks.services.tree import read_group, read_group_patch
from corral.lib.errors import Unprocessable
from corral.net.routes import Request, Response


def group_table(ask: Ask) -> Table:
    """The groups' part of the front door. A group may be called `apps` or `versions`, so that no path is exclusive."""
    door = _Groups(ask)
    return (
        ("GET", "/v2/groups", door.get_group),
        ("POST", "/v2/groups", door.create_group),
        ("PUT", "/v2/groups", door.update_group),
        ("PATCH", "/v2/groups", door.patch_group),
        ("DELETE", "/v2/groups", door.delete_group),
        ("GET", "/v2/groups/versions/{version}", door.get_group_version),
        ("PUT", "/v2/groups/versions/{version}", door.roll_back_group),
        ("GET", "/v2/groups/versions", door.list_group_versions),
        ("GET", "/v2/groups/apps", door.list_group_apps),
        ("GET", "/v2/groups/{id*}/versions/{version}", door.get_group_version),
        ("PUT", "/v2/groups/{id*}/versions/{version}", door.roll_back_group),
        ("GET", "/v2/groups/{id*}/versions", door.list_group_versions),
        ("GET", "/v2/groups/{id*}/apps", door.list_group_apps),
        ("GET", "/v2/groups/{id*}", door.get_group),
        ("POST", "/v2/groups/{id*}", door.create_group),
        ("PUT", "/v2/groups/{id*}", door.update_group),
        ("PATCH", "/v2/groups/{id*}", door.patch_group),
        ("DELETE", "/v2/groups/{id*}", door.delete_group),
    )


class _Groups:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def get_group(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetGroup(id=group_id_of(request), embed=embed_of(request))))

    async def list_group_apps(self, request: Request) -> Response:
        await self._ask(request, GetGroup(id=group_id_of(request), embed=("group.groups",)))
        return write_json(await self._ask(request, GetApps(below=group_id_of(request), embed=embed_of(request))))

    async def list_group_versions(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetGroupVersions(id=group_id_of(request))))

    async def get_group_version(self, request: Request) -> Response:
        version = read_version(request.params["version"])
        return write_json(await self._ask(request, GetGroupVersion(id=group_id_of(request), version=version)))

    async def roll_back_group(self, request: Request) -> Response:
        version = read_version(request.params["version"])
        update = GroupUpdate(id=group_id_of(request))
        return write_result(
            await self._ask(request, UpdateGroup(update=update, to_version=version, force=request.flag("force")))
        )

    async def patch_group(self, request: Request) -> Response:
        enforce_role = read_group_patch(read_json(request.body))
        return write_result(await self._ask(request, PatchGroup(id=group_id_of(request), enforce_role=enforce_role)))

    async def create_group(self, request: Request) -> Response:
        group_id = group_id_of(request)
        found = read_group(read_json(request.body), group_id)
        for field, given in (("scaleBy", found.scale_by), ("version", found.to_version)):
            if given is not None:
                text = f"{field} changes a group that is there; use PUT"
                raise Unprocessable("Object is not valid", {f"/{field}": [text]})
        command = CreateGroup(
            update=found.update,
            force=request.flag("force"),
            policy=read_policy(request.query),
            ignored=found.unknown,
        )
        result = await self._ask(request, command)
        headers = {**headers_of(result, None, found.unknown), "Location": f"/v2/groups{found.update.id}"}
        return write_json(
            {"version": result.version, "deploymentId": result.deployment_id}, status=201, headers=headers
        )

    async def update_group(self, request: Request) -> Response:
        group_id = group_id_of(request)
        found = read_group(read_json(request.body), group_id)
        answer = await self._ask(
            request,
            UpdateGroup(
                update=found.update,
                scale_by=found.scale_by,
                to_version=None if found.to_version is None else read_version(found.to_version),
                dry_run=request.flag("dryRun"),
                diff=request.flag("diff"),
                force=request.flag("force"),
                policy=read_policy(request.query),
                ignored=found.unknown,
            ),
        )
        return write_result(answer, found.unknown) if isinstance(answer, Result) else write_json(answer)

    async def delete_group(self, request: Request) -> Response:
        return write_result(await self._ask(request, DeleteGroup(id=group_id_of(request), force=request.flag("force"))))
