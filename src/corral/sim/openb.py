"""Reads the inventories and workloads of the published openb traces: node lists and pod lists, CSV or gzipped CSV.

Every record is checked as it is read; the first that is wrong ends the reading with file, line and column.
Source: `cluster-trace-gpu-v2023` of github.com/alibaba/clusterdata.
"""

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from corral.allocator.packing import WHOLE, Demand, Supply
from corral.lib.errors import Invalid, NotFound

T = TypeVar("T")

NAMES = ("name", "sn")
"""The column that names a node or pod; the second is what the source calls it."""

NODE_COLUMNS = ("cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of an inventory."""

    name: str
    supply: Supply


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a workload. Shapes: instants in seconds from the start of the trace, None when not given.

    `qos` and `app` are empty when the list has no such column.
    """

    name: str
    demand: Demand
    qos: str = ""
    app: str = ""
    created_at: float | None = None
    deleted_at: float | None = None
    scheduled_at: float | None = None


class Cells:
    """The cells of one line, and where they stand for an error. Shapes: `line` counts from 1, the header included."""

    def __init__(self, path: Path, line: int, cells: Mapping[str, str]) -> None:
        self._path, self._line, self._cells = path, line, cells

    def text(self, column: str) -> str:
        """Empty when the column is not there."""
        return self._cells.get(column, "")

    def name(self) -> str:
        found = next((self._cells[column] for column in NAMES if self._cells.get(column)), "")
        if not found:
            raise self.wrong(NAMES[0], "is empty; name every line")
        return found

    def count(self, column: str) -> int:
        """A whole number of at least 0; empty counts as 0."""
        text = self.text(column)
        try:
            value = int(text or "0")
        except ValueError:
            raise self.wrong(column, f"is {text!r}; give a whole number") from None
        if value < 0:
            raise self.wrong(column, f"is {value}; give a number of at least 0")
        return value

    def instant_s(self, column: str) -> float | None:
        text = self.text(column)
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise self.wrong(column, f"is {text!r}; give seconds from the start of the trace or leave it empty")
        return value

    def wrong(self, column: str, what: str) -> Invalid:
        return Invalid(f"{self._path} line {self._line} column {column} {what}")


def read_nodes(path: Path) -> Iterator[Node]:
    """The machines of a node list, one by one.

    Errors: `NotFound` without the file; `Invalid` names file, line and column.
    """
    return _read(path, NODE_COLUMNS, _node)


def read_pods(path: Path) -> Iterator[Pod]:
    """The tasks of a pod list, one by one, in the order of the file.

    Errors: `NotFound` without the file; `Invalid` names file, line and column.
    """
    return _read(path, POD_COLUMNS, _pod)


def _node(cells: Cells) -> Node:
    supply = Supply(
        cpu_milli=cells.count("cpu_milli"),
        mem_mb=cells.count("memory_mib"),
        gpus=cells.count("gpu"),
        model=cells.text("model"),
    )
    return Node(name=cells.name(), supply=supply)


def _pod(cells: Cells) -> Pod:
    return Pod(
        name=cells.name(),
        demand=_demand(cells),
        qos=cells.text("qos"),
        app=cells.text("app"),
        created_at=cells.instant_s("creation_time"),
        deleted_at=cells.instant_s("deletion_time"),
        scheduled_at=cells.instant_s("scheduled_time"),
    )


def _demand(cells: Cells) -> Demand:
    """A slice is of one GPU; `A|B` names models of which any will do; without GPUs neither means anything."""
    gpus, gpu_milli = cells.count("num_gpu"), cells.count("gpu_milli")
    if gpus and not 1 <= gpu_milli <= WHOLE:
        raise cells.wrong("gpu_milli", f"is {gpu_milli} with num_gpu {gpus}; give 1 to {WHOLE} per GPU")
    if gpus > 1 and gpu_milli != WHOLE:
        raise cells.wrong("gpu_milli", f"is {gpu_milli} with num_gpu {gpus}; a slice is of one GPU, so give {WHOLE}")
    models = {model for model in cells.text("gpu_spec").split("|") if model} if gpus else set()
    return Demand(
        cpu_milli=cells.count("cpu_milli"),
        mem_mb=cells.count("memory_mib"),
        gpus=gpus,
        gpu_milli=gpu_milli if gpus else 0,
        models=tuple(sorted(models)),
    )


def _read(path: Path, columns: tuple[str, ...], read: Callable[[Cells], T]) -> Iterator[T]:
    if not path.is_file():
        raise NotFound(f"no trace file at {path}; give the path of a CSV file, gzipped or not")
    line = 1
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            missing = [column for column in columns if column not in header]
            if not set(NAMES) & set(header):
                missing.insert(0, NAMES[0])
            if missing:
                raise Invalid(f"{path} line 1 lacks the column {missing[0]}; its columns are {', '.join(header)}")
            for row in rows:
                line = rows.line_num
                if not row:
                    continue
                if len(row) != len(header):
                    raise Invalid(f"{path} line {line} has {len(row)} columns but the header {len(header)}; mend it")
                yield read(Cells(path, line, dict(zip(header, row, strict=True))))
    except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise Invalid(f"{path} cannot be read beyond line {line} ({error}); get the file anew") from error
