"""Makes an image out of this machine's static busybox, for machines that reach no registry.

Plain blocking calls, for scripts and fixtures; the agent itself speaks through `engine`.
"""

import http.client
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from corral.lib.errors import Failed

_PT_INTERP = 3
_DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var", "var/www")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def engine_call(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 10.0,
) -> bytes:
    """One call of the Engine's API without a version in its path.

    Errors: `Failed` with the Engine's words when it refuses; `OSError` when it does not answer.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "unix":
        connection = _UnixConnection(parts.path, timeout_s)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 2375, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        content = response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"the Engine at {url} broke off: {error!r}") from None
    finally:
        connection.close()
    if response.status >= 400:
        raise Failed(f"the Engine refused {method} {path}: {content.decode(errors='replace').strip()[:300]}")
    return content


def engine_answers(url: str, timeout_s: float = 2.0) -> bool:
    try:
        engine_call(url, "GET", "/_ping", timeout_s=timeout_s)
    except (OSError, Failed):
        return False
    return True


def is_static(program: Path) -> bool:
    """Whether a 64-bit ELF program needs no dynamic loader, and so runs in an empty file system."""
    head = program.read_bytes()
    if head[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    return all(struct.unpack_from("<I", head, offset + i * size)[0] != _PT_INTERP for i in range(count))


def busybox_tar() -> bytes:
    """A root file system with busybox and a link for each of its applets.

    Errors: `Failed` when there is no static busybox on this machine.
    """
    found = shutil.which("busybox", path=os.environ.get("PATH", "") + ":/usr/bin:/bin")
    if found is None or not is_static(Path(found)):
        raise Failed("no static busybox found to make an image from; run: apt-get install busybox-static")
    applets = subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, kind: bytes, mode: int, content: bytes = b"", target: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), target
            tar.addfile(entry, io.BytesIO(content))

        for directory in _DIRECTORIES:
            add(directory, tarfile.DIRTYPE, 0o755)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("bin/busybox", tarfile.REGTYPE, 0o755, Path(found).read_bytes())
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, target="busybox")
        add("usr/bin", tarfile.SYMTYPE, 0o777, target="../bin")
        add(
            "etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
        )
        add("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nnogroup:x:65534:\n")
        add("var/www/index.html", tarfile.REGTYPE, 0o644, b"<h1>It works</h1>\n")
    return buffer.getvalue()


def import_busybox(url: str, names: Iterable[str], *, timeout_s: float = 60.0) -> None:
    """Give the Engine the busybox image under each of these `repository:tag` names that it does not have.

    Errors: `Failed` with the Engine's words.
    """
    missing = []
    for name in names:
        try:
            engine_call(url, "GET", f"/images/{name}/json")
        except Failed:
            missing.append(name)
    if not missing:
        return
    repository, _, tag = missing[0].rpartition(":")
    changes = [("changes", 'CMD ["sh"]'), ("changes", "ENV PATH=/bin:/usr/bin")]
    query = urlencode([("fromSrc", "-"), ("repo", repository), ("tag", tag), *changes])
    answer = engine_call(
        url,
        "POST",
        f"/images/create?{query}",
        busybox_tar(),
        {"Content-Type": "application/x-tar"},
        timeout_s=timeout_s,
    )
    for line in answer.splitlines():
        if b'"error"' in line:
            raise Failed(f"the Engine did not import {missing[0]}: {json.loads(line).get('error')}")
    for name in missing[1:]:
        repository, _, tag = name.rpartition(":")
        engine_call(url, "POST", f"/images/{missing[0]}/tag?" + urlencode({"repo": repository, "tag": tag}))
