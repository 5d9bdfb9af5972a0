"""Builds pymesos, once per locked set of versions, into a directory of its own below the virtual environment.

It is kept apart because a foreign client shall not choose versions for corral. Everything comes from the package index
with its hash. Its dependency http-parser 0.9.0 carries a C file of 2020 that Python 3.11 cannot compile; written anew
from its own source by Cython 0.29 it can. Without compiler or Python headers its slower pure Python half is used,
which the package has for that case.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LOCK = ROOT / "requirements" / "pymesos.txt"
BUILD_LOCK = ROOT / "requirements" / "pymesos-build.txt"


def build_pymesos() -> Path:
    """The directory to put on PYTHONPATH; built the first time, which takes a few seconds.

    Errors: `RuntimeError` with the output of the step that failed.
    """
    key = hashlib.sha256(LOCK.read_bytes() + BUILD_LOCK.read_bytes()).hexdigest()[:12]
    target = Path(sys.prefix) / "foreign" / f"pymesos-{sys.implementation.cache_tag}-{key}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the finished directory gets its name in one step: it is there whole or not at all.
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        made = _build(Path(name))
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # nobody else was faster
                raise
    return target


def _build(work: Path) -> Path:
    tools, sources, made = work / "tools", work / "sources", work / "made"
    _pip("install", "--target", tools, "--require-hashes", "-r", BUILD_LOCK)
    with_tools = {"PYTHONPATH": str(tools)}
    own = ("--no-deps", "--no-build-isolation")
    _pip("download", *own, "--no-binary", "http-parser,pymesos", "--require-hashes", "-r", LOCK, "-d", sources,
         **with_tools)  # fmt: skip
    parser = _unpack(sources, "http?parser-*.tar.gz", work)
    for stale in (*parser.rglob("*.so"), *parser.rglob("*.pyc")):
        stale.unlink()
    if can_compile():
        _run(sys.executable, "-m", "cython", parser / "http_parser" / "parser.pyx", **with_tools)
    else:
        setup = parser / "setup.py"
        setup.write_text(setup.read_text().replace("run_setup(not IS_PYPY)", "run_setup(False)"))
    packages = (*sources.glob("*.whl"), *sources.glob("pymesos-*.tar.gz"), parser)
    _pip("install", *own, "--no-index", "--target", made, *packages, **with_tools)
    _run(sys.executable, "-c", "import pymesos", PYTHONPATH=str(made))
    if can_compile():
        _run(sys.executable, "-c", "import http_parser.parser", PYTHONPATH=str(made))
    return made


def can_compile() -> bool:
    """Whether a C compiler and the headers of this Python are here."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(compiler) is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


def _unpack(sources: Path, pattern: str, into: Path) -> Path:
    (archive,) = sources.glob(pattern)
    with tarfile.open(archive) as found:
        found.extractall(into)  # its hash has been checked
        return into / found.getnames()[0].split("/")[0]


def _pip(verb: str, *arguments: str | Path, **environment: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", verb, *quiet, *arguments, **environment)


def _run(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    if done.returncode:
        shown = " ".join(map(str, command))
        raise RuntimeError(
            f"pymesos could not be built: {shown} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )


if __name__ == "__main__":
    print(build_pymesos())
