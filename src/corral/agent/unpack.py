"""Unpacks archives into a sandbox, and refuses everything in them that would reach outside of it.

Each member is checked on the file system as it is at that moment, because earlier members may have made links.
Source: Mesos v1 CommandInfo.URI.extract, for the list of suffixes.
"""

import contextlib
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

from corral.lib.errors import Failed

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Python before 3.11.4 lacks filters; the checks below do not depend on them.
_HAS_FILTERS = hasattr(tarfile, "data_filter")
_CHUNK = 1 << 18


def archive_kind(name: str) -> str | None:
    """`tar`, `zip` or `gz` when the suffix is one that is unpacked."""
    lower = name.lower()
    if lower.endswith(_TAR):
        return "tar"
    return "zip" if lower.endswith(".zip") else "gz" if lower.endswith(".gz") else None


def unpack(
    kind: str, source: str, target: str, sandbox: str, most_bytes: int, *, filtered: bool = _HAS_FILTERS
) -> list[str]:
    """Unpack the file `source` into the sandbox; a single compressed file becomes `target` without its suffix.

    Shapes: returns the paths that were made. Units: `most_bytes` bounds what all of it takes when unpacked.
    Errors: `Failed` says which member is wrong, or that the file is damaged.
    """
    root = os.path.realpath(sandbox)
    try:
        if kind == "tar":
            return list(_unpack_tar(source, root, most_bytes, filtered))
        if kind == "zip":
            return list(_unpack_zip(source, root, most_bytes))
        return [_unpack_gzip(source, target[: -len(".gz")], most_bytes)]
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise Failed(f"the archive cannot be unpacked: {cause}; check the file or set extract to false") from None


def _unpack_tar(source: str, root: str, most_bytes: int, filtered: bool) -> Iterator[str]:
    left = most_bytes
    with tarfile.open(source, "r:*") as archive:
        for member in archive:
            left = _take(left, member.size, most_bytes)
            path = _inside(root, root, member.name, member.name)
            if member.issym():
                _inside(root, os.path.dirname(path), member.linkname, member.name)
            elif member.islnk():
                _inside(root, root, member.linkname, member.name)
            elif not member.isfile() and not member.isdir():
                raise Failed(f"the archive holds {member.name!r}, which is neither file, directory nor link; remove it")
            member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
            member.mode = member.mode & 0o755 | (0o700 if member.isdir() else 0o600)
            if filtered:
                archive.extract(member, root, filter="data")
            else:
                archive.extract(member, root)
            yield path


def _unpack_zip(source: str, root: str, most_bytes: int) -> Iterator[str]:
    left = most_bytes
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            left = _take(left, member.file_size, most_bytes)
            path = _inside(root, root, member.filename, member.filename)
            mode = member.external_attr >> 16
            if member.is_dir():
                os.makedirs(path, 0o755, exist_ok=True)
            elif stat.S_ISLNK(mode):
                link = os.fsdecode(archive.read(member)[:4096])
                _inside(root, os.path.dirname(path), link, member.filename)
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                _clear(path)
                os.symlink(link, path)
            else:
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                _clear(path)
                with archive.open(member) as packed, open(path, "xb") as file:
                    shutil.copyfileobj(packed, file, _CHUNK)
                os.chmod(path, mode & 0o755 | 0o600 if mode else 0o644)
            yield path


def _unpack_gzip(source: str, path: str, most_bytes: int) -> str:
    _clear(path)
    left = most_bytes
    with gzip.open(source) as packed, open(path, "xb") as file:
        while data := packed.read(_CHUNK):
            left = _take(left, len(data), most_bytes)
            file.write(data)
    return path


def _take(left: int, size: int, most_bytes: int) -> int:
    if size > left:
        raise Failed(f"the archive unpacks to more than {most_bytes} bytes, the agent's bound")
    return left - size


def _inside(root: str, base: str, name: str, member: str) -> str:
    """The path of `name` under `base`, once it is sure that it is below `root` after all links are followed."""
    path = os.path.normpath(os.path.join(base, name))
    real = os.path.realpath(os.path.join(base, name))
    if name.startswith("/") or not (path + "/").startswith(root + "/") or not (real + "/").startswith(root + "/"):
        raise Failed(
            f"the archive holds {member!r}, which leads out of the sandbox; pack it with paths that stay inside"
        )
    return path


def _clear(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
