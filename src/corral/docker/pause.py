"""An image with one program that waits for ever, made here byte by byte, so that it has to come from nowhere.

What it is for has to run and to do nothing. Source: ELF-64 object format; system calls of Linux for each machine.
"""

import io
import struct
import tarfile

from corral.lib.errors import Failed

HOLDER_IMAGE = "corral/holder:1"
PROGRAM = "/hold"

_BASE = 0x400000
_HEADERS = 64 + 56

_X86_64 = bytes.fromhex(
    "b822000000"  # mov eax, 34 (pause)
    "0f05"  # syscall
    "ebf7"  # jump to the first
)
_AARCH64 = struct.pack(
    "<8I",
    *(0xD2800000 | register for register in range(5)),  # movz x0 to x4, 0
    0xD2800928,  # movz x8, 73 (ppoll)
    0xD4000001,  # svc 0
    0x17FFFFF9,  # branch to the first
)
_MACHINES = {"amd64": (62, _X86_64), "x86_64": (62, _X86_64), "arm64": (183, _AARCH64), "aarch64": (183, _AARCH64)}
"""The number of a machine in ELF and its program, by the names that Engines and kernels have for it."""


def make_program(machine: str) -> bytes:
    """Errors: `Failed` for a machine that there is no program for."""
    if machine not in _MACHINES:
        raise Failed(f"no network can be shared by containers on a machine of type {machine}; use the host's network")
    number, code = _MACHINES[machine]
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    readable_and_executable, loaded = 5, 1
    segment = struct.pack("<IIQQQQQQ", loaded, readable_and_executable, 0, _BASE, _BASE, size, size, 0x10000)
    return ident + header + segment + code


def holder_tar(machine: str) -> bytes:
    """The image's file system. Errors: as `make_program`."""
    program = make_program(machine)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.mode, entry.size = 0o755, len(program)
        tar.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()
