"""Versions of configs and secrets; what is sealed is read by nobody who has not the key, the name and the record."""

import base64
import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from corral.lib.errors import Conflict, CorralError, Failed, Invalid, NotFound, TooLarge, Unavailable
from corral.lib.secret import Secret
from corral.net.routes import Request, Response
from corral.runtime.core import Asked, Loaded, Note, Persist, Reply, Stored, encode_record
from corral.vault.core import VaultCore
from corral.vault.routes import read_value, reseal, routes
from corral.vault.sealing import Keys, add_key, read_keys
from corral.vault.spec import (
    MOST_BYTES,
    MOST_VERSIONS,
    Get,
    Kind,
    List,
    Put,
    Remove,
    Stale,
    Versions,
    check_name,
    split_source,
)


class Vault:
    """A core with what it has persisted."""

    def __init__(self) -> None:
        self.core = VaultCore()
        self.records: dict[str, bytes] = {}
        self.notes: list[Note] = []

    def ask(self, command: Any) -> Any:
        answer = None
        for effect in self.core.handle(Asked(1, command), 1_700_000_000.0):
            match effect:
                case Persist(key=key, record=None):
                    del self.records[key]
                case Persist(key=key, record=record):
                    assert record is not None
                    self.records[key] = encode_record(record)
                case Reply(value=value):
                    answer = value
                case Note():
                    self.notes.append(effect)
        self.core.invariants()
        return answer

    async def wait(self, command: Any) -> Any:
        return self.ask(command)

    def again(self) -> "Vault":
        made = Vault()
        made.core.handle(Loaded(tuple(Stored(k, v) for k, v in sorted(self.records.items()))), 0.0)
        made.records = dict(self.records)
        made.core.invariants()
        return made


def put(vault: Vault, data: bytes, name: str = "db/password", **more: Any) -> Any:
    return vault.ask(Put(kind=Kind.CONFIG, name=name, data=data, **more))


def test_every_value_is_a_version_and_the_newest_few_are_kept() -> None:
    vault = Vault()
    for number in range(1, MOST_VERSIONS + 4):
        assert put(vault, b"%d" % number) == number
    assert len(vault.records) == MOST_VERSIONS
    kept = vault.ask(Versions(kind=Kind.CONFIG, name="db/password"))
    assert [v.number for v in kept] == list(range(4, MOST_VERSIONS + 4))
    assert vault.ask(Get(kind=Kind.CONFIG, name="db/password", number=5)).data == b"5"
    with pytest.raises(NotFound, match="no version 1"):
        vault.ask(Get(kind=Kind.CONFIG, name="db/password", number=1))


def test_a_new_life_has_all_versions_in_order() -> None:
    vault = Vault()
    for number in range(12):
        put(vault, b"%d" % number)
    again = vault.again()
    assert again.ask(Get(kind=Kind.CONFIG, name="db/password")).data == b"11"
    assert put(again, b"next") == 13


def test_configs_and_secrets_of_one_name_are_two_things() -> None:
    vault = Vault()
    put(vault, b"config", "x")
    vault.ask(Put(kind=Kind.SECRET, name="x", data=b"sealed", key_id="k"))
    assert [v.name for v in vault.ask(List(kind=Kind.SECRET))] == ["x"]
    vault.ask(Remove(kind=Kind.CONFIG, name="x"))
    assert len(vault.records) == 1
    with pytest.raises(NotFound, match="there is no config x"):
        vault.ask(Get(kind=Kind.CONFIG, name="x"))


def test_a_value_is_set_only_on_top_of_the_version_that_was_seen() -> None:
    vault = Vault()
    put(vault, b"1", expected=0)
    with pytest.raises(Conflict, match="is at version 1, not 0"):
        put(vault, b"2", expected=0)
    assert put(vault, b"2", expected=1) == 2


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../x", ".x", "a b", "ä", "x" * 201, "a@1"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


def test_a_value_that_is_too_large_is_refused() -> None:
    with pytest.raises(TooLarge):
        put(Vault(), b"x" * (MOST_BYTES + 1000))


def test_a_source_is_a_secret_unless_it_says_config() -> None:
    assert split_source("db/password") == (Kind.SECRET, "db/password")
    assert split_source("/db/password") == (Kind.SECRET, "db/password")
    assert split_source("config:app.conf") == (Kind.CONFIG, "app.conf")
    assert split_source("secret:x") == (Kind.SECRET, "x")


def keys(tmp_path: Path, count: int = 1) -> Keys:
    for _ in range(count):
        add_key(tmp_path / "keys", "20260101")
    return read_keys(tmp_path / "keys")


def test_what_is_sealed_is_opened_by_the_same_key_and_name_alone(tmp_path: Path) -> None:
    own = keys(tmp_path)
    data, key_id = own.seal("a", Secret(b"value"))
    assert b"value" not in data
    assert own.seal("a", Secret(b"value"))[0] != data
    assert own.open("a", data, key_id).reveal() == b"value"
    with pytest.raises(Failed, match="cannot be opened"):
        own.open("b", data, key_id)
    with pytest.raises(Failed, match="cannot be opened"):
        own.open("a", data[:-1] + bytes([data[-1] ^ 1]), key_id)
    with pytest.raises(Unavailable, match="put it back"):
        own.open("a", data, "other")


def test_without_a_key_nothing_is_sealed_and_the_error_says_how_to_get_one() -> None:
    with pytest.raises(Unavailable, match="corral secret new-key"):
        Keys().seal("a", Secret(b"x"))


@pytest.mark.parametrize("text", ["", "# only words\n", "id:short\n", f"id:{'A' * 43}!\n", "no colon\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(Invalid, match="key_file"):
        read_keys(file)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    keys(tmp_path)
    (tmp_path / "keys").chmod(0o640)
    with pytest.raises(Invalid, match="can be read by others"):
        read_keys(tmp_path / "keys")
    with pytest.raises(Invalid, match="cannot be read"):
        read_keys(tmp_path / "none")


async def test_a_new_key_on_top_seals_everything_anew_and_then_the_old_one_can_go(tmp_path: Path) -> None:
    vault, old = Vault(), keys(tmp_path)
    for value in (b"one", b"two"):
        data, key_id = old.seal("s", Secret(value))
        vault.ask(Put(kind=Kind.SECRET, name="s", data=data, key_id=key_id))
    new = keys(tmp_path)
    assert await reseal(vault.wait, new) == 2
    assert vault.ask(Stale(key_id=new.current)) == []
    (tmp_path / "keys").write_text((tmp_path / "keys").read_text().splitlines()[0] + "\n")
    alone = read_keys(tmp_path / "keys")
    records = vault.again().ask(Versions(kind=Kind.SECRET, name="s"))
    assert [alone.open("s", r.data, r.key_id).reveal() for r in records] == [b"one", b"two"]
    assert await reseal(vault.wait, new) == 0


def test_a_secret_shows_nothing_however_it_is_looked_at() -> None:
    secret = Secret(b"hunter2")
    shown = [str(secret), repr(secret), f"{secret}", f"{secret:>9}", str([secret]), str({"a": secret})]
    assert all("hunter2" not in text and "***" in text for text in shown)
    for write in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not written down"):
            write(secret)
    assert secret == Secret(b"hunter2") != Secret(b"x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hunter2",
        b'"hunter2"',
        b'{"value": 7}',
        b'{"value": "hunter2", "base64": ""}',
        b'{"base64": "hunter2 !"}',
        b"{}",
    ],
)
def test_a_body_of_another_form_is_refused_without_showing_it(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_value(body, Kind.SECRET)
    assert "hunter2" not in caught.value.message


class Door:
    """The routes, asked by their method and path."""

    def __init__(self, keys: Keys, needed: Any = None) -> None:
        self.vault = Vault()
        self.changed: list[str] = []
        self.routes = routes(self.vault.wait, keys, needed, self._take)

    async def _take(self, source: str) -> None:
        self.changed.append(source)

    async def __call__(self, method: str, path: str, body: bytes = b"", **query: str) -> Any:
        import re

        from corral.net.routes import compile_path

        for route in self.routes:
            match = compile_path(route.path).fullmatch(path)
            if route.method == method and match is not None:
                request = Request(
                    method=method, path=path, params=match.groupdict(), body=body,
                    query={k: [v] for k, v in query.items()},
                )  # fmt: skip
                answer = await route.handler(request)
                assert isinstance(answer, Response)
                assert re.search(b"hunter2", answer.body) is None or path.endswith("agent/secrets")
                import msgspec

                return msgspec.json.decode(answer.body) if answer.body else None
        raise AssertionError(f"no route {method} {path}")


async def test_a_secret_goes_in_and_never_comes_out_but_to_an_agent_whose_task_names_it(tmp_path: Path) -> None:
    async def needed(session: str, framework: str, task: str) -> list[str]:
        assert (session, framework, task) == ("s", "F", "T")
        return ["secret:db/password", "config:c"]

    door = Door(keys(tmp_path), needed)
    assert (await door("PUT", "/corral/v1/secrets/db/password", b'{"value": "hunter2"}'))["version"] == 1
    await door("PUT", "/corral/v1/configs/c", b'{"base64": "%s"}' % base64.b64encode(b"\xff\x00"))
    assert (await door("GET", "/corral/v1/secrets/db/password"))["value"] == "***"
    assert (await door("GET", "/corral/v1/secrets"))["secrets"][0]["name"] == "db/password"
    assert len((await door("GET", "/corral/v1/secrets/db/password/versions"))["versions"]) == 1
    assert (await door("GET", "/corral/v1/configs/c"))["base64"] == base64.b64encode(b"\xff\x00").decode()
    assert all(b"hunter2" not in value for value in door.vault.records.values())
    assert door.changed == ["secret:db/password", "config:c"]
    body = b'{"framework_id": "F", "task_id": "T"}'
    found = (await door("POST", "/corral/v1/agent/secrets", body, session="s"))["values"]
    assert base64.b64decode(found["secret:db/password"]) == b"hunter2"
    assert base64.b64decode(found["config:c"]) == b"\xff\x00"
    await door("DELETE", "/corral/v1/secrets/db/password")
    with pytest.raises(NotFound):
        await door("POST", "/corral/v1/agent/secrets", body, session="s")


async def test_a_wrong_version_number_is_refused(tmp_path: Path) -> None:
    door = Door(keys(tmp_path))
    with pytest.raises(CorralError, match="not a version's number"):
        await door("GET", "/corral/v1/configs/c", version="new")
