"""Configs and secrets over HTTP. A secret's value comes in and goes to agents that run a task which names it; to nobody
else, in no answer and no error.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from corral.lib.errors import CorralError, Invalid
from corral.lib.log import get_logger
from corral.lib.secret import Secret
from corral.lib.units import format_timestamp
from corral.net.routes import Request, Response, Route, json_response
from corral.net.stream import SECRETS_PATH
from corral.vault.sealing import Keys
from corral.vault.spec import (
    MOST_BYTES,
    Get,
    Kind,
    List,
    Put,
    Remove,
    Reseal,
    Stale,
    VersionRecord,
    Versions,
    check_name,
    split_source,
)

log = get_logger("vault")

Ask = Callable[[Any], Awaitable[Any]]
Needed = Callable[[str, str, str], Awaitable[Sequence[str]]]
"""The sources that a task of an agent's session names: session, framework, task. Errors: `Forbidden` if it has none."""
Changed = Callable[[str], Awaitable[None]]
"""Told the source whose value is another one."""

MOST_BODY = 4 * MOST_BYTES


def routes(ask: Ask, keys: Keys, needed: Needed, changed: Changed) -> list[Route]:
    door = _Vault(ask, keys, needed, changed)
    table: list[Route] = []
    for kind in Kind:
        base = f"/corral/v1/{kind}s"
        table += [
            Route(method="GET", path=base, handler=door.on(kind, door.list)),
            Route(method="GET", path=f"{base}/{{name*}}/versions", handler=door.on(kind, door.versions)),
            Route(method="GET", path=f"{base}/{{name*}}", handler=door.on(kind, door.get)),
            Route(method="PUT", path=f"{base}/{{name*}}", handler=door.on(kind, door.put), most_bytes=MOST_BODY),
            Route(method="DELETE", path=f"{base}/{{name*}}", handler=door.on(kind, door.remove)),
        ]
    table.append(Route(method="POST", path=SECRETS_PATH, handler=door.hand_over))
    return table


class _Vault:
    def __init__(self, ask: Ask, keys: Keys, needed: Needed, changed: Changed) -> None:
        self._ask = ask
        self._keys = keys
        self._needed = needed
        self._changed = changed

    def on(self, kind: Kind, handler: Callable[[Kind, Request], Awaitable[Response]]) -> Any:
        async def handle(request: Request) -> Response:
            return await handler(kind, request)

        return handle

    async def list(self, kind: Kind, request: Request) -> Response:
        return json_response({f"{kind}s": [_view(record) for record in await self._ask(List(kind=kind))]})

    async def versions(self, kind: Kind, request: Request) -> Response:
        found = await self._ask(Versions(kind=kind, name=check_name(request.params["name"])))
        return json_response({"versions": [_view(record) for record in found]})

    async def get(self, kind: Kind, request: Request) -> Response:
        record = await self._ask(Get(kind=kind, name=check_name(request.params["name"]), number=_number(request)))
        if kind is Kind.SECRET:
            return json_response({**_view(record), "value": "***"})
        return json_response({**_view(record), **_write_value(record.data)})

    async def put(self, kind: Kind, request: Request) -> Response:
        name = check_name(request.params["name"])
        value = read_value(request.body, kind)
        expected = _number(request, "expected")
        data, key_id = self._keys.seal(name, value) if kind is Kind.SECRET else (value.reveal(), "")
        number = await self._ask(Put(kind=kind, name=name, data=data, key_id=key_id, expected=expected))
        await self._changed(f"{kind}:{name}")
        return json_response({"name": name, "version": number})

    async def remove(self, kind: Kind, request: Request) -> Response:
        await self._ask(Remove(kind=kind, name=check_name(request.params["name"])))
        return Response(status=204)

    async def hand_over(self, request: Request) -> Response:
        """The values that a task names, to the agent that was ordered to run it."""
        try:
            body = msgspec.json.decode(request.body, type=_Fetch)
        except msgspec.DecodeError as error:
            raise Invalid(f"the body is not what agents send: {error}") from None
        found: dict[str, bytes] = {}
        for source in await self._needed(request.first("session"), body.framework_id, body.task_id):
            kind, name = split_source(source)
            record: VersionRecord = await self._ask(Get(kind=kind, name=name))
            sealed = kind is Kind.SECRET
            found[source] = self._keys.open(name, record.data, record.key_id).reveal() if sealed else record.data
        return json_response({"values": found}, headers={"Cache-Control": "no-store"})


class _Fetch(msgspec.Struct, frozen=True):
    framework_id: str
    task_id: str


def read_value(body: bytes, kind: Kind) -> Secret:
    """The value of `{"value": TEXT}` or `{"base64": TEXT}`.

    Errors: `Invalid`, which never shows what was sent.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict) or len(found.keys() & {"value", "base64"}) != 1:
        raise Invalid(f'a {kind} is set by a body of the form {{"value": "..."}} or {{"base64": "..."}}')
    text = found.get("value", found.get("base64"))
    if not isinstance(text, str):
        raise Invalid(f"the value of a {kind} must be a text; give bytes in base64")
    if "value" in found:
        data = text.encode()
    else:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Invalid("the field base64 is not base64") from None
    if len(data) > MOST_BYTES:
        raise Invalid(f"a {kind} has at most {MOST_BYTES} bytes; this one has {len(data)}")
    return Secret(data)


def _view(record: VersionRecord) -> dict[str, Any]:
    return {"name": record.name, "version": record.number, "setAt": format_timestamp(record.at)}


def _write_value(data: bytes) -> dict[str, str]:
    try:
        return {"value": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _number(request: Request, key: str = "version") -> int | None:
    text = request.first(key)
    if not text:
        return None
    if not text.isdecimal() or len(text) > 9:
        raise Invalid(f"query parameter {key}={text!r} is not a version's number")
    return int(text)


async def reseal(ask: Ask, keys: Keys) -> int:
    """Seal with the current key what is sealed with an older one; returns how many versions that were."""
    if not keys.current:
        return 0
    done = 0
    for record in await ask(Stale(key_id=keys.current)):
        try:
            data, key_id = keys.seal(record.name, keys.open(record.name, record.data, record.key_id))
        except CorralError as error:
            log.warning("secret not resealed", secret=record.name, version=record.number, why=error.message)
            continue
        done += bool(await ask(Reseal(name=record.name, number=record.number, data=data, key_id=key_id)))
    if done:
        log.info("secrets resealed", count=done, why=f"the current key is {keys.current}")
    return done
