"""Reads what a task has left as its result: one small file of its sandbox."""

import os
import stat
from contextlib import suppress

from corral.model.task import MOST_RESULT_BYTES


def read_result(sandbox: str, path: str) -> tuple[bytes | None, str]:
    """The content of a file of the sandbox. Shapes: (None, "") when there is no such file; else None and why.

    The task wrote there whatever it liked, links out of the sandbox included, which are not followed.
    """
    root = os.path.realpath(sandbox)
    place = os.path.normpath(os.path.join(root, path))
    if not place.startswith(root + os.sep) or os.path.realpath(os.path.dirname(place)) != os.path.dirname(place):
        return None, f"its result file {path!r} does not lie in the sandbox"
    try:
        found = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"its result file {path!r} cannot be read: {error.strerror}"
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None, f"its result file {path!r} is no regular file"
        content = os.read(found, MOST_RESULT_BYTES + 1)
    except OSError as error:
        return None, f"its result file {path!r} cannot be read: {error.strerror}"
    finally:
        with suppress(OSError):
            os.close(found)
    if len(content) > MOST_RESULT_BYTES:
        return None, f"its result file {path!r} holds more than the {MOST_RESULT_BYTES} bytes that are passed on"
    return content, ""
