"""Files that others read while they are written: the old content or the new, never a part."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Put `data` in the place of the file at once; what has no such file yet gets one.

    Shapes: `mode` None keeps the old file's, or 0644 for a new one; its owner stays too where that is allowed.
    Errors: `OSError` as the file system has it; the old content then stands.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        before = target.stat()
    except FileNotFoundError:
        before = None
    handle, fresh = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode if mode is not None else (before.st_mode & 0o7777 if before else 0o644))
            if before is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
        os.replace(fresh, target)
    except BaseException:
        os.unlink(fresh)
        raise
