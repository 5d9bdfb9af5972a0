"""Decides how a task without an image sees its volumes: links in its sandbox, or a mount namespace by bubblewrap.

A target in the sandbox, or relative to it, becomes a symbolic link, as Mesos does on the host's file system. Any other
target, and a read-only one that a link could not protect, needs a mount namespace of the task's own, in which
bubblewrap lets no program gain rights (as by sudo). Source: Mesos v1 Volume; bwrap(1).
"""

import os
import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

from corral.lib.errors import Failed
from corral.model.execution import Mount


class MountPlan(NamedTuple):
    """Shapes: `links` are pairs of path and what it points to; `binds` triples of source, target, read-only."""

    links: tuple[tuple[str, str], ...] = ()
    binds: tuple[tuple[str, str, bool], ...] = ()


def plan_mounts(sandbox: str, mounts: Sequence[Mount]) -> MountPlan:
    """Settle for each volume whether a link is enough.

    Errors: `Failed` when a relative target would leave the sandbox.
    """
    links, binds = [], []
    for mount in mounts:
        given = mount.target.removeprefix(sandbox.rstrip("/") + "/")
        if given.startswith("/"):
            binds.append((mount.source, given, mount.read_only))
            continue
        target = os.path.normpath(given)
        if target in (".", "..") or target.startswith("../"):
            raise Failed(f"volume target {mount.target!r} leaves the sandbox; name a directory inside it")
        if mount.read_only:
            binds.append((mount.source, os.path.join(sandbox, target), True))
        else:
            links.append((os.path.join(sandbox, target), mount.source))
    return MountPlan(tuple(links), tuple(binds))


def prepare_mounts(
    sandbox: str, mounts: Sequence[Mount], find: Callable[[str], str | None] = shutil.which
) -> list[str]:
    """Make links and mount points; returns what goes in front of the command, nothing without a namespace.

    Errors: `Failed` names the volume that is missing or in the way, or bubblewrap when that is missing.
    """
    plan = plan_mounts(sandbox, mounts)
    for source in [source for _, source in plan.links] + [source for source, _, _ in plan.binds]:
        if not os.path.exists(source):
            raise Failed(f"volume source {source} does not exist on this node; create it or correct the path")
    for path, source in plan.links:
        _link(sandbox, path, source)
    if not plan.binds:
        return []
    bwrap = find("bwrap")
    if bwrap is None:
        raise Failed(
            f"volume at {plan.binds[0][1]} needs a mount namespace but bubblewrap (bwrap) is not on this node; "
            "install bubblewrap, run the task with an image, or mount read-write at a relative path"
        )
    argv = [bwrap, "--dev-bind", "/", "/"]
    for source, target, read_only in plan.binds:
        _mount_point(sandbox, source, target)
        argv += ["--ro-bind" if read_only else "--bind", source, target]
    return [*argv, "--"]


def _link(sandbox: str, path: str, source: str) -> None:
    _make_parents(sandbox, path)
    if os.path.islink(path) and os.readlink(path) == source:
        return
    try:
        os.symlink(source, path)
    except OSError as error:
        raise Failed(f"volume {source} cannot be linked at {path}: {error.strerror}") from None


def _mount_point(sandbox: str, source: str, target: str) -> None:
    if target.startswith(sandbox + "/") and not os.path.lexists(target):
        _make_parents(sandbox, target)
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    if not os.path.exists(target):
        # bubblewrap would create it, and leave it on the host for ever.
        raise Failed(f"volume target {target} does not exist on this node; create it or give a relative path")
    if os.path.isdir(source) != os.path.isdir(target):
        raise Failed(f"volume {source} cannot be mounted at {target}: one is a directory, the other is not")


def _make_parents(sandbox: str, path: str) -> None:
    parent = os.path.dirname(path)
    try:
        os.makedirs(parent, exist_ok=True)
    except OSError as error:
        raise Failed(f"volume at {path} cannot be made: {error.strerror}") from None
    root = os.path.realpath(sandbox)
    if not (os.path.realpath(parent) + "/").startswith(root + "/"):
        raise Failed(f"volume target {path} leaves the sandbox through a link; correct what is fetched")
