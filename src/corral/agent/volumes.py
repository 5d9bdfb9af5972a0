"""The directories of persistent volumes: made when a task first uses them, deleted when their volume is destroyed.

Layout: WORK_DIR/volumes/roles/ROLE/ID, or the same below the root of a disk of its own. What is to be deleted is first
moved aside by one rename, so that a half deleted volume is never taken for a whole one.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Sequence

from corral.agent.sandbox import find_user
from corral.lib.errors import Failed

DESTROYED = ".destroyed"


async def make(paths: Sequence[str], owner: str | None) -> None:
    """Make the volumes that are not there, for this user. Errors: `Failed` says what could not be made."""
    if paths:
        await asyncio.to_thread(_make, paths, owner)


def _make(paths: Sequence[str], owner: str | None) -> None:
    ids = find_user(owner)
    for path in paths:
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                continue
            if ids is not None:
                os.chown(path, *ids)
        except OSError as error:
            raise Failed(f"volume {path} cannot be made: {error.strerror}; look at the agent's disk") from None


async def delete(path: str) -> None:
    """Delete a volume's data; nothing when there is none. Errors: `OSError`."""
    await asyncio.to_thread(_delete, path)


def _delete(path: str) -> None:
    name = hashlib.sha256(path.encode()).hexdigest()
    # Beside `roles`, where no role's name can be in the way.
    aside = os.path.join(os.path.normpath(os.path.join(path, "../../..")), DESTROYED, name)
    if os.path.lexists(path):
        _remove(aside)
        os.makedirs(os.path.dirname(aside), exist_ok=True)
        os.rename(path, aside)
    _remove(aside)


def _remove(path: str) -> None:
    if os.path.lexists(path):
        shutil.rmtree(path)
