"""Reads the bodies of the batch API and writes its answers; refuses what cannot be meant, field by field.

The usual body is read in one step; only one with a fault is read again slowly, to tell all that is wrong with it.
Source: the batch contract, record and API.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from corral.frameworks.batch.admission import Admitted
from corral.frameworks.batch.ids import read_id
from corral.frameworks.batch.launch import read_constraint
from corral.frameworks.batch.spec import (
    MOST_PRIORITY,
    MOST_TTL_S,
    Delivery,
    JobSpec,
    JobState,
    KillJobs,
    Owner,
    QueryJobs,
    Submit,
    WaitJobs,
)
from corral.lib.errors import CorralError, Invalid, TooLarge
from corral.net.routes import Request, Response, json_response
from corral.sdk.notices import is_web_address
from corral.sdk.reading import kind_of, read_json

MOST_TOLD = 100
MOST_WAIT_S = 60.0
MOST_IDS = 100_000
MOST_RETRIES = 1000
MOST_TIME_S = 10 * 365 * 86400.0
MOST_AMOUNT = 1e9
MOST_COUNT = 10**9
"""More than that of anything is no number that a record holds or that anybody means."""
_NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,127}", re.ASCII)
_VARIABLE = re.compile(r"[^=\x00]+")
_NAMED_FIELD = re.compile(r"Object (contains unknown|(?P<missing>missing required)) field `(?P<name>.*)`", re.DOTALL)


class Many(msgspec.Struct, forbid_unknown_fields=True):
    """Shapes: `defaults` holds fields for jobs that do not have them."""

    jobs: tuple[JobSpec, ...]
    defaults: dict[str, Any] | None = None


class Faults(Invalid):
    """Shapes: `errors` are `{"index", "field", "message"}`, of which at most so many are told."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        first = errors[0]
        where = f"jobs[{first['index']}]" + (f".{first['field']}" if first["field"] else "")
        more = f"; {len(errors) - 1} faults more" if len(errors) > 1 else ""
        super().__init__(f"{where}: {first['message']}{more}")
        self.errors = list(errors)


_many = msgspec.json.Decoder(Many)
_one = msgspec.json.Decoder(JobSpec)


def read_submission(request: Request, most_jobs: int, most_array: int) -> Submit:
    """One job, `{"jobs": [...], "defaults": {...}}`, or a job a line as NDJSON.

    Errors: `Invalid` for a body that is none of these; `Faults` names every job and field; `TooLarge` for too many.
    """
    body, media = request.body, request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body.strip():
        raise Invalid('the body is empty; send a job such as {"command": "true"}, or {"jobs": [...]}')
    jobs = _read_jobs(body, media, most_jobs)
    if len(jobs) > most_jobs:
        raise TooLarge(f"{len(jobs)} jobs are asked for at once, {most_jobs} are taken; send them in several requests")
    checker = _Checker(most_array)
    errors = [error for index, spec in enumerate(jobs) for error in checker.check(index, spec)]
    if errors:
        raise Faults(errors[:MOST_TOLD])
    key = _read_request_key(request)
    digest = sha256(body).hexdigest()[:32] if key else ""
    return Submit(jobs=jobs, key=key, digest=digest, check=request.flag("check", True))


def _read_request_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if len(key) > 255:
        raise Invalid(f"the header Idempotency-Key has {len(key)} characters; 255 are the most")
    if any("\ud800" <= letter <= "\udfff" for letter in key):
        # Bytes that are no text, which no record could hold.
        raise Invalid("the header Idempotency-Key is not UTF-8; send text, such as a UUID")
    return key


def _read_jobs(body: bytes, media: str, most_jobs: int) -> tuple[JobSpec, ...]:
    if media in ("application/x-ndjson", "application/ndjson", "application/jsonl"):
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) > most_jobs:
            raise TooLarge(f"{len(lines)} jobs are asked for at once, {most_jobs} are taken; send several requests")
        try:
            return tuple(_one.decode(line) for line in lines)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return _read_slowly([_line(line, number) for number, line in enumerate(lines)], {})
    try:
        if b'"jobs"' in body[:4096] or b'"defaults"' in body:
            found = _many.decode(body)
            if not found.defaults:
                return found.jobs
        else:
            return (_one.decode(body),)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    raw = read_json(body)
    if isinstance(raw, dict) and ("jobs" in raw or "defaults" in raw):
        unknown = sorted(set(raw) - {"jobs", "defaults"})
        if unknown:
            raise Invalid(f"the body has the field {unknown[0]!r} beside jobs; there are jobs and defaults")
        if "jobs" not in raw:
            raise Invalid("the body has defaults and no jobs; give jobs as a list beside them")
        defaults = {} if raw.get("defaults") is None else raw["defaults"]
        if not isinstance(raw["jobs"], list) or not isinstance(defaults, dict):
            wrong, wanted = ("jobs", "a list") if not isinstance(raw["jobs"], list) else ("defaults", "an object")
            raise Invalid(f"{wrong} must be {wanted}, got {kind_of(raw[wrong])}")
        return _read_slowly(raw["jobs"], defaults)
    return _read_slowly([raw], {})


def _line(line: bytes, number: int) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Faults([{"index": number, "field": "", "message": f"line {number + 1} is not JSON: {error}"}]) from None


def _read_slowly(raw: Sequence[Any], defaults: Mapping[str, Any]) -> tuple[JobSpec, ...]:
    found: list[JobSpec] = []
    errors: list[dict[str, Any]] = []
    for index, each in enumerate(raw):
        if not isinstance(each, dict):
            errors.append({"index": index, "field": "", "message": f"a job must be an object, got {kind_of(each)}"})
            continue
        try:
            merged = {key: value for key, value in {**defaults, **each}.items() if value is not None}
            found.append(msgspec.convert(merged, JobSpec))
        except msgspec.ValidationError as error:
            field, text = _tell_fault(str(error), merged)
            errors.append({"index": index, "field": field, "message": text})
        if len(errors) >= MOST_TOLD:
            break
    if errors:
        raise Faults(errors)
    return tuple(found)


def _tell_fault(said: str, job: Mapping[str, Any]) -> tuple[str, str]:
    """The field that is at fault and what of it, from what the decoder says of a job."""
    text, _, place = said.partition(" - at ")
    field = place.strip("`").removeprefix("$").removeprefix(".")
    named = _NAMED_FIELD.fullmatch(text)
    if named is not None:
        name = named["name"]
        if named["missing"]:
            text = f"{name} is missing"
        else:
            there = "" if field else f"; there are {', '.join(JobSpec.__struct_fields__)}"
            text = f"{name[:40]!r} is no field of {field or 'a job'}{there}"
        return ".".join(part for part in (field, name[:40]) if part), text
    if field == "delivery" and text.startswith("Invalid enum"):
        text = f"{job[field]!r} is none of {', '.join(Delivery)}"
    name, inner, _ = field.partition("[...]")
    if inner and isinstance(job.get(name), dict):
        # The decoder does not say which of them.
        key = next((key for key, value in job[name].items() if not isinstance(value, str)), "")
        field = f"{name}.{key[:40]}"
    return field, text


class _Checker:
    """The rules of a job. Shapes: what was found good once need not be looked at again."""

    def __init__(self, most_array: int) -> None:
        self._most_array = most_array
        self._owners: set[str] = set()

    def check(self, index: int, spec: JobSpec) -> list[dict[str, Any]]:
        return [{"index": index, "field": field, "message": text} for field, text in self._faults(spec)]

    def _faults(self, spec: JobSpec) -> Iterator[tuple[str, str]]:
        in_container = bool(spec.image or spec.container)
        if bool(spec.command) + bool(spec.argv) != 1 and not (in_container and not (spec.command and spec.argv)):
            yield "command", "give either command, for a shell, or argv; in a container both may be left out"
        if spec.owner not in self._owners:
            if not _NAME.fullmatch(spec.owner):
                yield "owner", f"{spec.owner[:40]!r} is no name: letters, digits, and . _ @ + - after the first"
            self._owners.add(spec.owner)
        if not -MOST_PRIORITY <= spec.priority <= MOST_PRIORITY:
            yield "priority", f"{spec.priority} is outside of -{MOST_PRIORITY} to {MOST_PRIORITY}"
        if not 0 <= spec.retries <= MOST_RETRIES:
            yield "retries", f"{spec.retries} is outside of 0 to {MOST_RETRIES}"
        if not 0 <= spec.ttl <= MOST_TTL_S:
            yield "ttl", f"{spec.ttl} is outside of 0 to {MOST_TTL_S} seconds"
        yield from self._amounts(spec)
        if spec.array is not None:
            if not 1 <= spec.array.count <= self._most_array:
                yield "array.count", f"{spec.array.count} is outside of 1 to {self._most_array}"
            if not 0 <= spec.array.max_running <= MOST_COUNT:
                yield "array.max_running", f"{spec.array.max_running} is outside of 0 to {MOST_COUNT}; 0 bounds nothing"
        if spec.env or spec.labels or spec.constraints or spec.callback or spec.container or spec.fetch:
            yield from _rare_faults(spec)
        if len(spec.key) > 255 or len(spec.name) > 255:
            yield ("key" if len(spec.key) > 255 else "name"), "is longer than 255 characters"
        if "\x00" in spec.command or any("\x00" in word for word in spec.argv):
            yield ("command" if "\x00" in spec.command else "argv"), "holds a null character"
        if spec.argv and not spec.argv[0] and not in_container:
            yield "argv", "its first word, the program, is empty"

    def _amounts(self, spec: JobSpec) -> Iterator[tuple[str, str]]:
        for field, value in (("cpus", spec.cpus), ("mem", spec.mem), ("disk", spec.disk), ("gpus", spec.gpus)):
            if not 0 <= value <= MOST_AMOUNT:
                yield field, f"{value:g} is outside of 0 to {MOST_AMOUNT:g}"
        if spec.cpus < 0.001 and spec.mem < 0.001 and spec.disk < 0.001 and spec.gpus < 0.001:
            yield "cpus", "a job must ask for something; give cpus or mem"
        if spec.gpus > 1 and not float(spec.gpus).is_integer():
            yield "gpus", f"{spec.gpus:g} is more than one and not whole; ask a part of one GPU, or whole ones"
        for field, value in (
            ("retry_delay", spec.retry_delay), ("timeout", spec.timeout), ("queue_timeout", spec.queue_timeout),
            ("grace", spec.grace),
        ):  # fmt: skip
            if not 0 <= value <= MOST_TIME_S or not math.isfinite(value):
                yield field, f"{value:g} is no time; give seconds from 0 to {MOST_TIME_S:.0f}"


def _rare_faults(spec: JobSpec) -> Iterator[tuple[str, str]]:
    for name, value in (spec.env or {}).items():
        if not _VARIABLE.fullmatch(name) or "\x00" in value:
            yield f"env.{name[:40]}", "the name must not be empty and hold no =, and neither a null character"
    for constraint in spec.constraints:
        try:
            read_constraint(constraint)
        except Invalid as error:
            yield "constraints", error.message
    if spec.callback and not is_web_address(spec.callback):
        yield "callback", f"{spec.callback[:60]!r} is no URL of http or https"
    if spec.container is not None:
        if spec.image and spec.image != spec.container.image:
            yield "image", "differs from container.image; give one of them"
        if not spec.container.image:
            yield "container.image", "is empty"
        for volume in spec.container.volumes:
            if volume.mode not in ("RW", "RO"):
                yield "container.volumes", f"mode {volume.mode!r} is neither RW nor RO"
            if not volume.container_path.startswith("/"):
                yield "container.volumes", f"container_path {volume.container_path[:60]!r} is no absolute path"
    for fetch in spec.fetch:
        if "://" not in fetch.uri and not fetch.uri.startswith("/"):
            yield "fetch", f"{fetch.uri[:60]!r} is neither a URL nor an absolute path"


def write_admitted(found: Admitted) -> dict[str, Any]:
    jobs = [
        {"id": job_id, "state": state, "index": index, "duplicate": index in found.duplicates}
        for index, (job_id, state) in enumerate(zip(found.ids, found.states, strict=True))
    ]
    answer: dict[str, Any] = {"jobs": jobs, "count": len(jobs), "duplicates": len(found.duplicates)}
    if found.notices:
        answer["notices"] = list(found.notices)
    return answer


# Other bodies.


class _Query(msgspec.Struct, forbid_unknown_fields=True):
    ids: tuple[str, ...]
    fields: tuple[str, ...] = ()


class _Wait(msgspec.Struct, forbid_unknown_fields=True):
    ids: tuple[str, ...]
    timeout: float = 30.0
    any: bool = False


class _Kill(msgspec.Struct, forbid_unknown_fields=True):
    ids: tuple[str, ...] = ()
    owner: str = ""
    label: str = ""
    state: str = ""


class _Patch(msgspec.Struct, forbid_unknown_fields=True):
    priority: int


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        found = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"the body cannot be read: {error}") from None
    if len(getattr(found, "ids", ())) > MOST_IDS:
        raise TooLarge(f"{len(found.ids)} ids are given, {MOST_IDS} are taken at once")
    return found


def read_query(body: bytes) -> QueryJobs:
    found = _read(body, _Query)
    return QueryJobs(ids=found.ids, fields=found.fields)


def read_wait(body: bytes) -> WaitJobs:
    found = _read(body, _Wait)
    if not 0 <= found.timeout <= MOST_WAIT_S:
        raise Invalid(f"timeout is {found.timeout:g}; it must be from 0 to {MOST_WAIT_S:g} seconds")
    return WaitJobs(ids=found.ids, timeout=found.timeout, any=found.any)


def read_kill(body: bytes) -> KillJobs:
    """Errors: `Invalid` when it names nothing: that would mean everything."""
    found = _read(body, _Kill)
    if not (found.ids or found.owner or found.label or found.state):
        raise Invalid("the body names no jobs; give ids, or an owner, a label or a state")
    if found.ids and (found.owner or found.label or found.state):
        raise Invalid("give either ids, or an owner, a label and a state")
    ids = tuple(dict.fromkeys(found.ids))
    return KillJobs(ids=ids, owner=found.owner, label=found.label, state=check_state(found.state))


def read_priority(body: bytes) -> int:
    priority: int = _read(body, _Patch).priority
    if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        raise Invalid(f"priority is {priority}; it must be from -{MOST_PRIORITY} to {MOST_PRIORITY}")
    return priority


def read_owner(body: bytes, name: str) -> Owner:
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name[:40]!r} is no name of an owner: letters, digits, and . _ @ + - after the first")
    found: Owner = _read(body, Owner)
    if not 0.001 <= found.weight <= 1e6:
        raise Invalid(f"weight is {found.weight:g}; it must be from 0.001 to 1000000")
    for field, value in (("max_running", found.max_running), ("max_queued", found.max_queued)):
        if value is not None and not 0 <= value <= MOST_COUNT:
            raise Invalid(f"{field} is {value}; it must be from 0 to {MOST_COUNT}, where 0 running bounds nothing")
    return found


def check_cursor(text: str) -> str:
    if text and read_id(text) is None:
        raise Invalid(f"cursor {text[:40]!r} is none of ours; give the next_cursor of a page, or none for the first")
    return text


def check_state(text: str) -> str:
    if text and text.upper() not in list(JobState):
        raise Invalid(f"state {text!r} is not known; there are {', '.join(JobState)}")
    return text.upper()


def write_error(error: CorralError, request: Request) -> Response:
    """Errors: `{"message", "errors": [{"index", "field", "message"}]}`, with a time where trying again helps."""
    errors: list[Mapping[str, Any]] = []
    if isinstance(error, Faults):
        errors = error.errors
    else:
        for path, texts in getattr(error, "details", {}).items():
            index = re.sub(r"\D", "", path)
            errors += [{"index": int(index) if index else 0, "field": "", "message": text} for text in texts]
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return json_response({"message": error.message, "errors": errors}, status=error.status, headers=headers)
