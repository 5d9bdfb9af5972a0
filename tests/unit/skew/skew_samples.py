"""Samples of every record and message, made from their types, and frozen as the bytes of a release.

`python tests/unit/skew/skew_samples.py` adds what is new to `skew_samples.json`. What stands there is never changed: it
is what a process of that release has written. At a release the file is made anew with `--release`.
"""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect

import corral
from corral.agent import cutoff
from corral.agent import operations as agent_operations
from corral.agent import spec as agent
from corral.frameworks.batch import spec as batch
from corral.frameworks.cron import spec as cron
from corral.frameworks.services import record_spec as services
from corral.frameworks.services import role_spec
from corral.master import spec as master
from corral.model import orders, role
from corral.runtime import election
from corral.sdk import node_records, notices, scheduler, tokens
from corral.trust import spec as trust

FILE = Path(__file__).with_name("skew_samples.json")

RECORDS: dict[str, Any] = {
    **{f"master.{kind.__name__}": kind for kind in (
        master.EpochRecord, master.AgentRecord, master.GoneRecord, master.MaintenanceRecord, master.FrameworkRecord,
        master.RemovedRecord, master.WeightRecord, role.RoleSettings,
    )},
    **{f"agent.{kind.__name__}": kind for kind in (
        agent.Identity, agent.FrameworkRecord, agent.ExecutorRun, agent.ExecutorRecord, agent.RunRecord,
        agent.TaskRecord, agent_operations.ResourcesRecord, cutoff.ContactRecord,
    )},
    **{f"services.{kind.__name__}": kind for kind in (
        services.AppRecord, services.VersionRecord, services.GroupRecord, services.FailureRecord, services.Instance,
        services.Deployment,
    )},
    **{f"cron.{kind.__name__}": kind for kind in (
        cron.Progress, cron.Purge, cron.JobRecord, cron.Run, cron.HistoryRecord, cron.Edges, cron.Backfill, cron.Signal,
    )},
    "services.ResidentRecord": role_spec.ResidentRecord,
    "cron.Tokens": tokens.Tokens,
    "cron.Notice": notices.Notice,
    **{f"batch.{kind.__name__}": kind for kind in (batch.Owner, batch.Progress, batch.Bundle, batch.KillOrder)},
    **{f"trust.{kind.__name__}": kind for kind in (trust.TokenRecord, trust.NodeRecord)},
    "sdk.FrameworkRecord": scheduler.FrameworkRecord,
    "sdk.NodeRecord": node_records.NodeRecord,
    "election.Candidate": election.Candidate,
}  # fmt: skip
MESSAGES: dict[str, Any] = {
    **{f"order.{kind.__name__}": kind for kind in get_args(orders.Order)},
    **{f"report.{kind.__name__}": kind for kind in get_args(orders.Report)},
}
KINDS = {**RECORDS, **MESSAGES}


class Maker:
    """Makes a value of a type as plain data. Shapes: not `full` leaves out what has a default; `extra` adds to every
    struct a field that nobody knows, as a later release may.
    """

    def __init__(self, *, full: bool, extra: bool = False) -> None:
        self._full = full
        self._extra = extra
        self._depth = 0

    def make(self, kind: Any) -> Any:
        return self._make(inspect.type_info(kind))

    def _make(self, kind: inspect.Type) -> Any:
        match kind:
            case inspect.StructType():
                return self._struct(kind)
            case inspect.UnionType(types=types):
                known = [each for each in types if not isinstance(each, inspect.NoneType)]
                return self._make(known[0])
            case inspect.EnumType(cls=cls):
                return next(iter(cls)).value
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
                return [self._make(item)]
            case inspect.FrozenSetType(item_type=item) | inspect.SetType(item_type=item):
                return [self._make(item)]
            case inspect.TupleType(item_types=items):
                return [self._make(item) for item in items]
            case inspect.DictType(key_type=key, value_type=value):
                return {self._make(key): self._make(value)}
            case inspect.LiteralType(values=values):
                return values[0]
            case inspect.StrType():
                return "x"
            case inspect.BytesType():
                return b"\x01"
            case inspect.IntType():
                return 3
            case inspect.FloatType():
                return 1.5
            case inspect.BoolType():
                return True
            case inspect.NoneType() | inspect.AnyType():
                return None
        raise TypeError(f"no sample for {kind}")

    def _struct(self, kind: inspect.StructType) -> Any:
        self._depth += 1
        try:
            fields = [f for f in kind.fields if f.required or (self._full and self._depth < 8)]
            if kind.array_like:
                values = [] if kind.tag is None else [kind.tag]
                values += [self._make(field.type) for field in fields]
                whole = len(fields) == len(kind.fields)
                return [*values, "of a later release"] if self._extra and whole else values
            named = {} if kind.tag_field is None else {kind.tag_field: kind.tag}
            named.update({field.encode_name: self._make(field.type) for field in fields})
            return {**named, "later": "of a later release"} if self._extra else named
        finally:
            self._depth -= 1


def samples(kind: Any, *, extra: bool = False) -> list[bytes]:
    """One with what has to be there alone, one with everything."""
    return [msgspec.msgpack.encode(Maker(full=full, extra=extra).make(kind)) for full in (False, True)]


def show(value: Any) -> Any:
    """A decoded value as JSON can keep it, with what it has by default."""
    return json.loads(msgspec.json.encode(_spell_out(value)))


def _spell_out(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        form = value.__struct_config__
        fields = [_spell_out(getattr(value, name)) for name in value.__struct_fields__]
        if form.array_like:
            return fields if form.tag is None else [form.tag, *fields]
        tag = {} if form.tag is None else {form.tag_field: form.tag}
        return {**tag, **dict(zip(value.__struct_encode_fields__, fields, strict=True))}
    if isinstance(value, dict):
        return {key: _spell_out(each) for key, each in value.items()}
    return [_spell_out(each) for each in value] if isinstance(value, list | tuple | set | frozenset) else value


def main() -> None:
    known = {} if "--release" in sys.argv or not FILE.exists() else json.loads(FILE.read_text())["samples"]
    for name, kind in KINDS.items():
        if name not in known:
            known[name] = [
                {"bytes": one.hex(), "value": show(msgspec.msgpack.decode(one, type=kind))} for one in samples(kind)
            ]
    lines = [f"{json.dumps(name)}: {json.dumps(known[name], sort_keys=True)}" for name in sorted(known)]
    body = ",\n".join(lines)
    FILE.write_text(f'{{"release": "{corral.__version__}", "samples": {{\n{body}\n}}}}\n')


if __name__ == "__main__":
    main()
