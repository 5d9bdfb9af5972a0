"""Puts the values that a task names where it finds them: files in memory, or variables of its environment.

They come from the master when the task is started, stay in no core, record or journal, and are never written to a disk
by this agent. Without a memory file system no such task is started.
"""

import asyncio
import json
import os
import pwd
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from corral.lib.errors import Failed
from corral.lib.secret import Secret
from corral.model.execution import Execution, Mount

Fetch = Callable[[str, str], Awaitable[Mapping[str, Secret]]]
"""Asks the master for what a task of a framework names. Errors: `CorralError` in the master's words."""

_MEMORY = ("/run", "/dev/shm")  # noqa: S108 - where a memory file system is, not where anything is left
_TMPFS = frozenset({"tmpfs", "ramfs"})


class SecretFiles:
    """Shapes: `root` is the directory below which each run has one of its own; None when there is no memory for it."""

    def __init__(self, owner: str, fetch: Fetch, root: str | None = None) -> None:
        self._fetch = fetch
        self._root = root or find_memory(f"corral-secrets-{owner}")

    async def fill(self, execution: Execution, user: str | None) -> Execution:
        """The run with its values. Shapes: `user` is whose process it will be, None when it is in a container.

        Errors: `Failed` or `Unavailable` in words that name what is missing and show no value.
        """
        execution = await self._fill_registries(execution)
        if not execution.secrets and not execution.secret_files:
            return execution
        if self._root is None:
            raise Failed(
                f"task names secrets, and neither {' nor '.join(_MEMORY)} is a memory file system on this node"
            )
        values = await self._fetch(execution.framework_id, execution.task_id)
        hidden = tuple((name, _need(values, source)) for name, source in execution.secrets)
        for name, secret in hidden:
            _check_text(name, secret)
        directory = os.path.join(self._root, execution.container_id)
        in_image = execution.docker is not None
        return await asyncio.to_thread(self._write, execution, directory, values, hidden, None if in_image else user)

    async def _fill_registries(self, execution: Execution) -> Execution:
        """With what its image is pulled with, which goes to no file."""
        source = execution.docker.pull_config if execution.docker is not None else None
        if source is None:
            return execution
        values = await self._fetch(execution.framework_id, execution.task_id)
        return msgspec.structs.replace(execution, registries=_need(values, source))

    def _write(
        self,
        execution: Execution,
        directory: str,
        values: Mapping[str, Secret],
        hidden: tuple[tuple[str, Secret], ...],
        user: str | None,
    ) -> Execution:
        assert self._root is not None
        in_image = execution.docker is not None
        os.makedirs(self._root, mode=0o711, exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        os.mkdir(directory, 0o700)
        try:
            mounts = list(execution.mounts)
            for index, (target, source) in enumerate(execution.secret_files):
                path = os.path.join(directory, str(index))
                # In a container nobody can get here but through the mount, whoever runs there.
                _create(path, _need(values, source).reveal(), 0o444 if in_image else 0o400, user)
                mounts.append(Mount(source=path, target=target, read_only=in_image))
            environment_file = ""
            if hidden and not in_image:
                environment_file = os.path.join(directory, "environment")
                _create(environment_file, _write_variables(hidden), 0o400, None)
            if not in_image:
                os.chmod(directory, 0o711)  # noqa: S103 - the file is the user's alone, on the way others only pass
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise Failed(f"secrets cannot be put below {self._root}: {error.strerror}") from None
        return msgspec.structs.replace(
            execution, mounts=tuple(mounts), hidden=hidden if in_image else (), hidden_file=environment_file
        )

    async def renew(self, framework_id: str, task_id: str, container_id: str, sources: Sequence[str]) -> None:
        """Give the files of a run the newest values, in the order in which it was started with them.

        Each file stays the same one, as it is mounted; it is written by one call, so that nobody sees it half old and
        half new. Errors: as `fill`.
        """
        if self._root is None:
            return
        values = await self._fetch(framework_id, task_id)
        wanted = [_need(values, source).reveal() for source in sources]
        await asyncio.to_thread(self._rewrite, os.path.join(self._root, container_id), wanted)

    def _rewrite(self, directory: str, values: Sequence[bytes]) -> None:
        try:
            for index, data in enumerate(values):
                _overwrite(os.path.join(directory, str(index)), data)
        except OSError as error:
            raise Failed(f"secrets below {self._root} cannot be written anew: {error.strerror}") from None

    def clear(self, container_id: str) -> None:
        """The run is over."""
        if self._root is not None:
            shutil.rmtree(os.path.join(self._root, container_id), ignore_errors=True)


def find_memory(name: str, places: tuple[str, ...] = _MEMORY, mounts: str = "/proc/mounts") -> str | None:
    """A directory of this name in memory; None when there is none that can be written."""
    kinds: dict[str, str] = {}
    with suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            kinds[words[1]] = words[2]
    for place in places:
        if kinds.get(place) in _TMPFS and os.access(place, os.W_OK | os.X_OK):
            return os.path.join(place, name)
    return None


def _need(values: Mapping[str, Secret], source: str) -> Secret:
    found = values.get(source)
    if found is None:
        raise Failed(f"the master gave no value for {source}; set it with corral secret set, or config set")
    return found


def _check_text(name: str, value: Secret) -> None:
    """Errors: `Failed` for what no variable can hold."""
    try:
        text = value.reveal().decode()
    except UnicodeDecodeError:
        raise Failed(f"the secret of variable {name} is not text; mount it as a file") from None
    if "\0" in text:
        raise Failed(f"the secret of variable {name} holds a zero byte; mount it as a file")


def _write_variables(hidden: tuple[tuple[str, Secret], ...]) -> bytes:
    return json.dumps({name: secret.reveal().decode() for name, secret in hidden}).encode()


def _overwrite(path: str, data: bytes) -> None:
    mode = os.stat(path).st_mode & 0o777
    os.chmod(path, mode | 0o200)  # an agent that is not root may not write even into what is its own
    try:
        handle = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(handle, data, 0)
            os.ftruncate(handle, len(data))
        finally:
            os.close(handle)
    finally:
        os.chmod(path, mode)


def _create(path: str, data: bytes, mode: int, user: str | None) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, data)
        os.fchmod(handle, mode)
        if user is not None and os.geteuid() == 0:
            with suppress(KeyError):
                entry = pwd.getpwnam(user)
                os.fchown(handle, entry.pw_uid, entry.pw_gid)
    finally:
        os.close(handle)
