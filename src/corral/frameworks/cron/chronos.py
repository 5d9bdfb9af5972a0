"""Chronos' JSON to jobs and back.

Source: Chronos' contract, sections 1 and 6. Fields beyond Chronos are corral's own and are shown only where they differ
from their defaults, so that tools which compare every field see what they know.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from corral.frameworks.cron.launch import cpus_of, disk_of, mem_of
from corral.frameworks.cron.reader import Reader
from corral.frameworks.cron.schedule import read_period
from corral.frameworks.cron.spec import (
    Concurrency,
    Config,
    Container,
    Counters,
    Delivery,
    Fetch,
    JobSpec,
    Kind,
    Misfire,
    Network,
    Parameter,
    Progress,
    Volume,
)
from corral.lib.errors import CorralError, Invalid
from corral.lib.units import format_timestamp
from corral.net.routes import Request, Response, json_response
from corral.sdk.notices import is_web_address

Json = Any
ONCE_NOW = "R1//PT24H"
MOST_NAME = 190
LEAST_AMOUNT = 0.001
"""Amounts are counted in thousandths."""
_NAME = re.compile(r"[A-Za-z0-9_. #-]+", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class ReadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was written. Shapes: `unknown` are the fields that nobody understood."""

    spec: JobSpec
    counters: Counters = Counters()
    unknown: tuple[str, ...] = ()


def check_name(name: str) -> None:
    """Errors: `Invalid` says which characters a name may have."""
    if _NAME.fullmatch(name) is None or not name.strip() or name in (".", ".."):
        raise Invalid(f"name {name!r} must be made of letters, digits, dot, dash, underscore, blank and #")
    if len(name) > MOST_NAME:
        raise Invalid(f"name {name[:40]!r}… is longer than {MOST_NAME} characters; shorten it")


def read_job(body: Json, kind: Kind | None = None) -> ReadJob:
    """A job's definition. Shapes: `kind` is what the endpoint takes, None takes either.

    Errors: `Invalid` names the field, what was found and what is wanted.
    """
    reader = Reader(body)
    name = reader.text("name")
    if not name:
        raise Invalid("name must be given")
    check_name(name)
    schedule, parents = _read_kind(reader, name, kind)
    spec = JobSpec(
        name=name, schedule=schedule, parents=parents, concurrency=read_concurrency(reader),
        parameters=read_parameters(reader), **read_work(reader),
    )  # fmt: skip
    counters = _read_counters(reader)
    for shown in ("state", "status", "lastRunStatus"):
        reader.has(shown)
    reader.done()
    check_work(spec)
    return ReadJob(spec=spec, counters=counters, unknown=tuple(reader.unknown))


def read_work(reader: Reader) -> dict[str, Any]:
    """What is to be done and how, without when: the fields of a `JobSpec` that a step of a DAG has too."""
    given: dict[str, Any] = {field: read(reader, key) for key, (field, read) in _SIMPLE.items() if reader.has(key)}
    given["uris"], given["fetch"] = _read_uris(reader)
    given["env"] = reader.pairs("environmentVariables", "name")
    given["constraints"] = _read_constraints(reader)
    given["container"] = _read_container(reader)
    return given


def _read_kind(reader: Reader, name: str, kind: Kind | None) -> tuple[str | None, tuple[str, ...]]:
    has_schedule, has_parents = reader.has("schedule"), reader.has("parents")
    if has_schedule and has_parents:
        raise Invalid(f"job {name!r} has both schedule and parents; give one of them")
    if has_parents and kind is Kind.SCHEDULED:
        raise Invalid(f"job {name!r} has parents; send it to the endpoint dependency")
    if not has_parents and kind is Kind.DEPENDENT:
        raise Invalid(f"job {name!r} has no parents; name them, or send it to the endpoint iso8601")
    if not has_parents:
        return reader.text("schedule") if has_schedule else ONCE_NOW, ()
    parents = tuple(sorted(set(reader.texts("parents"))))
    if not parents:
        raise Invalid(f"job {name!r} has an empty list of parents; name them, or give a schedule")
    return None, parents


def _read_executor(reader: Reader, field: str) -> str:
    value = reader.text(field)
    if value:
        raise Invalid(f"{field} is {value!r}, and this release runs no custom executors; leave it out")
    return ""


def _read_epsilon(reader: Reader, field: str) -> str | None:
    value = reader.text(field)
    if value and read_period(value).is_zero:
        raise Invalid(
            f"{field} is {value!r}, so every occurrence would be too late to be started; "
            f"give a duration such as PT1M, or leave it out"
        )
    return value or None


def _read_delay(reader: Reader, field: str) -> float:
    return reader.number(field)


def _read_factor(reader: Reader, field: str) -> float:
    factor = reader.number(field, 1.0)
    if not 1.0 <= factor <= 100.0:
        raise Invalid(f"{field} is {factor:g}; it must be from 1 to 100")
    return factor


def read_webhook(reader: Reader, field: str) -> str:
    value = reader.text(field)
    if value and not is_web_address(value):
        raise Invalid(f"{field} is {value!r}; it must be an http or https URL")
    return value


_SIMPLE: Mapping[str, tuple[str, Any]] = {
    "command": ("command", Reader.text),
    "shell": ("shell", lambda r, f: r.flag(f, True)),
    "arguments": ("arguments", Reader.texts),
    "scheduleTimeZone": ("time_zone", Reader.text),
    "epsilon": ("epsilon", _read_epsilon),
    "async": ("is_async", Reader.flag),
    "retries": ("retries", lambda r, f: r.whole(f, 2)),
    "retryDelay": ("retry_delay_s", _read_delay),
    "retryBackoffFactor": ("retry_factor", _read_factor),
    "owner": ("owner", Reader.text),
    "ownerName": ("owner_name", Reader.text),
    "description": ("description", Reader.text),
    "disabled": ("disabled", Reader.flag),
    "misfirePolicy": ("misfire", lambda r, f: Misfire(r.choice(f, Misfire.ONCE, [str(m) for m in Misfire]))),
    "delivery": ("delivery", lambda r, f: Delivery(r.choice(f, Delivery.AT_LEAST_ONCE, [str(d) for d in Delivery]))),
    "highPriority": ("high_priority", Reader.flag),
    "softError": ("soft_error", Reader.flag),
    "cpus": ("cpus", Reader.number),
    "mem": ("mem_mb", Reader.number),
    "disk": ("disk_mb", Reader.number),
    "maxCompletionTime": ("most_run_s", Reader.whole),
    "executor": ("executor", _read_executor),
    "executorFlags": ("executor_flags", Reader.text),
    "taskInfoData": ("task_info_data", Reader.text),
    "runAsUser": ("user", Reader.text),
    "dataProcessingJobType": ("counts_elements", Reader.flag),
    "webhook": ("webhook", read_webhook),
}


def read_concurrency(reader: Reader) -> Concurrency:
    concurrent = reader.flag("concurrent")
    if not reader.has("concurrencyPolicy"):
        return Concurrency.ALLOW if concurrent else Concurrency.FORBID
    policy = Concurrency(reader.choice("concurrencyPolicy", Concurrency.FORBID, [str(c) for c in Concurrency]))
    if concurrent and policy is not Concurrency.ALLOW:
        raise Invalid(f"concurrent is true and concurrencyPolicy is {policy}; leave concurrent out")
    return policy


def _read_uris(reader: Reader) -> tuple[tuple[str, ...], tuple[Fetch, ...]]:
    """Shapes: what a listing has mirrored into both forms is taken once, as fetch."""
    uris, fetch = reader.texts("uris"), tuple(_read_fetch(item) for item in reader.objects("fetch"))
    return ((), fetch) if uris == tuple(f.uri for f in fetch) else (uris, fetch)


def _read_fetch(item: Reader) -> Fetch:
    found = Fetch(
        uri=item.text("uri"),
        output_file=item.text("output_file"),
        executable=item.flag("executable"),
        cache=item.flag("cache"),
        extract=item.flag("extract", True),
    )
    item.done()
    if not found.uri:
        raise Invalid(f"{item.at('uri')} must be given")
    return found


def read_parameters(reader: Reader) -> tuple[Parameter, ...]:
    return tuple(_read_parameter(item) for item in reader.objects("parameters"))


def _read_parameter(item: Reader) -> Parameter:
    found = Parameter(name=item.text("name"), default=item.text("default") if item.has("default") else None)
    item.done()
    if _VARIABLE.fullmatch(found.name) is None:
        raise Invalid(f"{item.at('name')} is {found.name!r}; tasks see it as a variable, so it must be a name of one")
    return found


def _read_constraints(reader: Reader) -> tuple[tuple[str, str, str], ...]:
    found = []
    for item in reader.items("constraints"):
        if not isinstance(item, list) or len(item) != 3 or not all(isinstance(t, (str, int, float)) for t in item):
            raise Invalid(f"constraints must be lists of attribute, operator and value, one is {item!r}"[:300])
        found.append((str(item[0]), str(item[1]), str(item[2])))
    return tuple(found)


def _read_container(reader: Reader) -> Container | None:
    outer = reader.object("container")
    if outer is None:
        return None
    image = outer.text("image")
    if not image:
        raise Invalid("container.image must be given")
    kind = outer.choice("type", "DOCKER", ("DOCKER", "MESOS"))
    if kind == "MESOS":
        raise Invalid("container.type is MESOS, and this release runs images with Docker alone; use DOCKER")
    found = Container(
        image=image,
        kind=kind,
        network=outer.choice("network", "HOST", ("HOST", "BRIDGE", "USER", "NONE")),
        network_name=outer.text("networkName"),
        networks=tuple(_read_network(item) for item in outer.objects("networkInfos")),
        volumes=tuple(_read_volume(item) for item in outer.objects("volumes")),
        parameters=outer.pairs("parameters"),
        force_pull_image=outer.flag("forcePullImage"),
    )
    outer.done()
    if found.network == "USER" and not found.network_name and not any(n.name for n in found.networks):
        raise Invalid("container.network is USER and no network is named; give networkInfos with a name")
    return found


def _read_network(item: Reader) -> Network:
    ports = []
    for port in item.objects("portMappings"):
        ports.append(tuple((k, port.text(k)) for k in ("hostPort", "containerPort", "protocol") if port.has(k)))
        port.done()
    found = Network(
        name=item.text("name"),
        protocol=item.choice("protocol", "IPv4", ("IPv4", "IPv6")) if item.has("protocol") else None,
        labels=item.pairs("labels"),
        ports=tuple(ports),
    )
    item.done()
    return found


def _read_volume(item: Reader) -> Volume:
    if item.has("external"):
        raise Invalid(
            f"{item.at('external')}: volumes of Docker plugins are not supported by this release; use hostPath"
        )
    found = Volume(
        container_path=item.text("containerPath"),
        host_path=item.text("hostPath") or None,
        mode=item.choice("mode", "RW", ("RW", "RO")),
    )
    item.done()
    if not found.container_path:
        raise Invalid(f"{item.at('containerPath')} must be given")
    return found


def _read_counters(reader: Reader) -> Counters:
    return Counters(
        successes=reader.whole("successCount") if reader.has("successCount") else None,
        errors=reader.whole("errorCount") if reader.has("errorCount") else None,
        errors_since=reader.whole("errorsSinceLastSuccess") if reader.has("errorsSinceLastSuccess") else None,
        success_at=reader.instant("lastSuccess"),
        error_at=reader.instant("lastError"),
    )


def check_work(spec: JobSpec) -> None:
    """What no field shows alone. Errors: `Invalid`."""
    if spec.uris and spec.fetch:
        raise Invalid(f"job {spec.name!r} has both uris and fetch; keep fetch, the newer form")
    if not spec.command and spec.container is None:
        raise Invalid(f"job {spec.name!r} has neither a command nor a container image, so there is nothing to run")
    for field, value in (("cpus", spec.cpus), ("mem", spec.mem_mb), ("disk", spec.disk_mb)):
        if 0 < value < LEAST_AMOUNT:
            raise Invalid(f"{field} is {value:g}; it must be {LEAST_AMOUNT:g} or more, or 0 for the server's default")
    for name, _ in spec.env:
        if "=" in name or "\0" in name:
            raise Invalid(f"environmentVariables has the name {name!r}; a name of a variable holds no =")
    texts = [spec.command, spec.user, *spec.arguments, *(value for _, value in spec.env), *spec.uris]
    texts += [text for fetch in spec.fetch for text in (fetch.uri, fetch.output_file)]
    texts += [parameter.default or "" for parameter in spec.parameters]
    if any("\0" in text for text in texts):
        raise Invalid(f"job {spec.name!r} has a NUL byte in its command, arguments, environment, parameters or URIs")
    names = [p.name for p in spec.parameters]
    if len(set(names)) < len(names):
        raise Invalid(f"job {spec.name!r} has two parameters of one name")


# Writing.


def write_job(spec: JobSpec, progress: Progress, schedule: str, config: Config) -> dict[str, Json]:
    """A job as it is shown. Shapes: `schedule` is what is left of it, or empty for a dependent job."""
    shown: dict[str, Json] = {
        "name": spec.name,
        "command": spec.command,
        "shell": spec.shell,
        "executor": spec.executor,
        "executorFlags": spec.executor_flags,
        "taskInfoData": spec.task_info_data,
        "retries": spec.retries,
        "owner": spec.owner,
        "ownerName": spec.owner_name,
        "description": spec.description,
        "async": spec.is_async,
        "successCount": progress.successes,
        "errorCount": progress.errors,
        "lastSuccess": write_instant(progress.success_at),
        "lastError": write_instant(progress.error_at),
        "cpus": cpus_of(spec, config),
        "disk": disk_of(spec, config),
        "mem": mem_of(spec, config),
        "disabled": spec.disabled,
        "softError": spec.soft_error,
        "dataProcessingJobType": spec.counts_elements,
        "errorsSinceLastSuccess": progress.errors_since,
        "fetch": [_write_fetch(f) for f in spec.fetch],
        "uris": list(spec.uris),
        "environmentVariables": [{"name": k, "value": v} for k, v in spec.env],
        "arguments": list(spec.arguments),
        "highPriority": spec.high_priority,
        "runAsUser": spec.user or config.user,
        "concurrent": spec.concurrency is Concurrency.ALLOW,
        "constraints": [list(c) for c in spec.constraints],
        "maxCompletionTime": spec.most_run_s,
    }
    if spec.container is not None:
        shown["container"] = _write_container(spec.container)
    if spec.parents:
        shown["parents"] = list(spec.parents)
    else:
        shown["schedule"] = schedule
        shown["scheduleTimeZone"] = spec.time_zone
    if spec.epsilon is not None:
        shown["epsilon"] = spec.epsilon
    return {**shown, **_write_own(spec)}


def _write_own(spec: JobSpec) -> dict[str, Json]:
    """The fields beyond Chronos."""
    shown: dict[str, Json] = {}
    if spec.retry_delay_s is not None:
        shown["retryDelay"] = spec.retry_delay_s
    if spec.retry_factor != 1.0:
        shown["retryBackoffFactor"] = spec.retry_factor
    if spec.concurrency is Concurrency.REPLACE:
        shown["concurrencyPolicy"] = str(spec.concurrency)
    if spec.misfire is not Misfire.ONCE:
        shown["misfirePolicy"] = str(spec.misfire)
    if spec.delivery is not Delivery.AT_LEAST_ONCE:
        shown["delivery"] = str(spec.delivery)
    if spec.parameters:
        shown["parameters"] = [
            {"name": p.name} if p.default is None else {"name": p.name, "default": p.default} for p in spec.parameters
        ]
    if spec.webhook:
        shown["webhook"] = spec.webhook
    return shown


def mirror_fetch(shown: dict[str, Json]) -> dict[str, Json]:
    """A job of a listing: its uris as fetch and its fetch as uris, for clients that know only one of them."""
    uris, fetch = shown["uris"], shown["fetch"]
    if uris and not fetch:
        return {**shown, "fetch": [_write_fetch(Fetch(uri=uri)) for uri in uris]}
    return {**shown, "uris": [f["uri"] for f in fetch]} if fetch else shown


def write_instant(at: float | None) -> str:
    return "" if at is None else format_timestamp(at)


def _write_fetch(fetch: Fetch) -> dict[str, Json]:
    shown: dict[str, Json] = {
        "uri": fetch.uri, "executable": fetch.executable, "cache": fetch.cache, "extract": fetch.extract,
    }  # fmt: skip
    return {**shown, "output_file": fetch.output_file} if fetch.output_file else shown


def _write_container(container: Container) -> dict[str, Json]:
    shown: dict[str, Json] = {
        "type": container.kind,
        "image": container.image,
        "network": container.network,
        "networkInfos": [_write_network(n) for n in container.networks],
        "volumes": [
            {"containerPath": v.container_path, "mode": v.mode, **({"hostPath": v.host_path} if v.host_path else {})}
            for v in container.volumes
        ],
        "parameters": [{"key": k, "value": v} for k, v in container.parameters],
        "forcePullImage": container.force_pull_image,
    }
    return {**shown, "networkName": container.network_name} if container.network_name else shown


def _write_network(network: Network) -> dict[str, Json]:
    shown: dict[str, Json] = {"name": network.name}
    if network.protocol is not None:
        shown["protocol"] = network.protocol
    if network.labels:
        shown["labels"] = [{"key": k, "value": v} for k, v in network.labels]
    if network.ports:
        shown["portMappings"] = [dict(port) for port in network.ports]
    return shown


def write_error(error: CorralError, request: Request) -> Response:
    """Chronos' form: the words of the status and one sentence."""
    words = _STATUS_WORDS.get(error.status, "Internal Server Error")
    return json_response({"status": words, "message": error.message}, status=error.status)


_STATUS_WORDS = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    409: "Conflict", 413: "Request Entity Too Large", 422: "Unprocessable Entity", 503: "Service Unavailable",
    504: "Gateway Timeout",
}  # fmt: skip
