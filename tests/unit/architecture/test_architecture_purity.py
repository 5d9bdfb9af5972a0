"""Pure modules decide and nothing else: no clock, no randomness, no logging, no I/O, no waiting."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import corral

SOURCE = Path(corral.__file__).parent

FORBIDDEN_MODULES = {
    "asyncio", "threading", "socket", "ssl", "subprocess", "sqlite3", "aiohttp", "aiodocker", "random", "time",
    "logging", "os", "pathlib", "structlog", "shutil", "tempfile", "urllib", "http", "multiprocessing", "signal",
}  # fmt: skip
FORBIDDEN_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "print", "input"}

# Which files of a package may do I/O; every other file of it is pure. Packages that are not named are adapters.
MAY_DO_IO: dict[str, set[str]] = {
    "lib": {"config.py", "log.py", "clock.py", "contact.py"},
    "model": set(),
    "mesos": set(),
    "allocator": set(),
    "master": {"shell.py", "routes.py", "mesos_routes.py", "link_routes.py"},
    "agent": {
        "shell.py",
        "routes.py",
        "sandbox.py",
        "fetcher.py",
        "probes.py",
        "results.py",
        "cache.py",
        "unpack.py",
        "link.py",
        "detect.py",
        "streams.py",
        "executor_routes.py",
        "container_routes.py",
        "container_streams.py",
        "nested.py",
        "usage.py",
        "volumes.py",
        "secrets.py",
    },
    "sdk": {
        "framework.py",
        "http.py",
        "local.py",
        "agents.py",
        "feed.py",
        "logs.py",
        "measure.py",
        "notify.py",
        "signals.py",
    },
    "frameworks": {
        "routes.py",
        "cors_routes.py",
        "deployment_routes.py",
        "event_routes.py",
        "group_routes.py",
        "pod_routes.py",
        "registry_routes.py",
        "scaling_routes.py",
        "side_routes.py",
        "hijack.py",
    },
    "doctor": {"probe.py"},
    "trust": {"shell.py", "routes.py", "gate.py", "join.py", "authority.py"},
}
PURE_ELSEWHERE = [
    "runtime/core.py", "runtime/turn.py", "net/routes.py", "net/stream.py", "net/auth.py", "store/base.py",
    "docker/containers.py",
]  # fmt: skip


def pure_files() -> Iterator[Path]:
    for package, io_files in MAY_DO_IO.items():
        for path in sorted((SOURCE / package).rglob("*.py")):
            if path.name not in io_files:
                yield path
    for name in PURE_ELSEWHERE:
        if (SOURCE / name).exists():
            yield SOURCE / name


def offences(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [
                f"{node.lineno}: import {a.name}" for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES
            ]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {alias.name for alias in node.names}
            if node.module.split(".")[0] in FORBIDDEN_MODULES and not (node.module == "random" and names == {"Random"}):
                found.append(f"{node.lineno}: from {node.module} import {', '.join(sorted(names))}")
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name in FORBIDDEN_CALLS and (isinstance(node.func, ast.Name) or owner in ("datetime", "date", "uuid")):
                found.append(f"{node.lineno}: {owner + '.' if owner else ''}{name}()")
            if isinstance(node.func, ast.Name) and name == "Random":
                found.append(f"{node.lineno}: Random() made here; take one as an argument")
        elif isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"{node.lineno}: waits")
    return found


@pytest.mark.parametrize("path", list(pure_files()), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_pure_module_does_no_input_or_output(path: Path) -> None:
    assert offences(path) == []


def test_the_purity_check_sees_an_offence(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("import time\nfrom random import Random, choice\nasync def f():\n    await g()\n")
    assert len(offences(sample)) == 3


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it ends there: a handler that cleans up and raises again hides nothing."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(getattr(kind, "id", "") in ("Exception", "BaseException") for kind in kinds)


def test_only_the_runtime_catches_every_exception() -> None:
    """`except Exception` hides bugs: it stands where a process decides to end and at the edge of a request."""
    allowed = {
        "net/server.py",
        "store/sqlite.py",  # whatever breaks its thread becomes the StoreFailed that ends the process
    }
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        if name.startswith("runtime/") or name in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and catches_everything(node):
                found.append(f"{name}:{node.lineno}")
    assert found == []
