"""DAGs as JSON. A step has the fields of a Chronos job that say what is done, and corral's own that say when.

It is corral's own form, so a field that nobody knows is refused. `read_dag(write_dag(x)) == x`.
"""

import re
from collections import Counter
from typing import Any

from corral.frameworks.cron.chronos import (
    check_work,
    read_concurrency,
    read_parameters,
    read_webhook,
    read_work,
    write_job,
)
from corral.frameworks.cron.dags.spec import (
    MOST_ELEMENTS,
    MOST_STEPS,
    MOST_VALUE_BYTES,
    Array,
    Condition,
    DagSpec,
    Step,
    Test,
    When,
)
from corral.frameworks.cron.dags.steps import check_values, result_variable
from corral.frameworks.cron.reader import Reader
from corral.frameworks.cron.spec import Concurrency, Config, JobSpec, Progress
from corral.lib.errors import Invalid
from corral.model.patterns import compile_pattern

Json = Any
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", re.ASCII)
_OF_JOBS_ALONE = (
    "schedule", "parents", "scheduleTimeZone", "epsilon", "disabled", "concurrent", "concurrencyPolicy",
    "misfirePolicy", "parameters", "owner", "ownerName", "webhook", "dataProcessingJobType", "executor",
    "executorFlags", "taskInfoData", "successCount", "errorCount", "errorsSinceLastSuccess", "lastSuccess", "lastError",
)  # fmt: skip
_WRITTEN = (
    "command", "shell", "arguments", "cpus", "mem", "disk", "retries", "retryDelay", "retryBackoffFactor", "async",
    "delivery", "highPriority", "softError", "maxCompletionTime", "runAsUser", "description", "environmentVariables",
    "constraints", "container", "fetch", "uris",
)  # fmt: skip
_RESULT_FILE = "result"


def read_dag(body: Json) -> DagSpec:
    """Errors: `Invalid` names the step and the field, what was found and what is wanted."""
    reader = Reader(body)
    name = _read_name(reader, "the DAG")
    items = reader.objects("steps")
    if not items:
        raise Invalid(f"DAG {name!r} has no steps; give it one or more")
    if len(items) > MOST_STEPS:
        raise Invalid(f"DAG {name!r} has {len(items)} steps, {MOST_STEPS} are the most; make arrays of equal ones")
    steps = tuple(_read_step(item) for item in items)
    spec = DagSpec(
        name=name, steps=steps, schedule=reader.text("schedule") or None, time_zone=reader.text("scheduleTimeZone"),
        concurrency=read_concurrency(reader), parameters=read_parameters(reader), owner=reader.text("owner"),
        webhook=read_webhook(reader, "webhook"), description=reader.text("description"),
        disabled=reader.flag("disabled"),
    )  # fmt: skip
    reader.done()
    if reader.unknown:
        raise Invalid(f"DAG {name!r} has fields that nobody knows: {', '.join(reader.unknown[:10])}; take them out")
    twice = [p for p, count in Counter(p.name for p in spec.parameters).items() if count > 1]
    if twice:
        raise Invalid(f"DAG {name!r} has two parameters {twice[0]!r}; give each its own name")
    check_values({p.name: p.default for p in spec.parameters if p.default is not None})
    _check_steps(spec)
    return spec


def is_inside(path: str) -> bool:
    """Whether a path stays within the directory that it starts from."""
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return False
    return not path.startswith("/")


def _read_name(reader: Reader, what: str) -> str:
    name = reader.text("name")
    if _NAME.fullmatch(name) is None:
        raise Invalid(
            f"{reader.at('name')} of {what} is {name!r}; "
            "it must be of up to 80 letters, digits, dots, dashes and underscores"
        )
    return name


def _read_step(item: Reader) -> Step:
    name = _read_name(item, "the step")
    wrong = [field for field in _OF_JOBS_ALONE if field in item.fields]
    if wrong:
        raise Invalid(f"step {name!r} has {', '.join(wrong)}, which only a DAG or a job may have; take it out")
    result = item.any("result")
    if not (result is None or isinstance(result, bool | str)):
        raise item.wrong("result", "true or the name of a file")
    file = (_RESULT_FILE if result else "") if isinstance(result, bool) or result is None else result
    if "\0" in file or not is_inside(file):
        raise Invalid(f"{item.at('result')} is {file!r}; it must be a file of the sandbox, such as out/result")
    job = JobSpec(name=name, concurrency=Concurrency.ALLOW, result=file, **read_work(item))
    _check_work(job)
    after = item.texts("after")
    if len(set(after)) < len(after):
        raise Invalid(f"{item.at('after')} names a step twice")
    step = Step(
        name=name, job=job, after=after, when=When(item.choice("when", When.SUCCESS, [str(w) for w in When])),
        conditions=tuple(_read_condition(one) for one in item.objects("if")), array=_read_array(item.object("array")),
    )  # fmt: skip
    item.done()
    return step


def _check_work(job: JobSpec) -> None:
    """Errors: `Invalid` names the step."""
    try:
        check_work(job)
    except Invalid as error:
        rest = error.message.removeprefix(f"job {job.name!r} ")
        raise Invalid(f"step {job.name!r}{' ' if rest != error.message else ': '}{rest}") from None


def _read_condition(item: Reader) -> Condition:
    given = [test for test in Test if item.has(test)]
    if len(given) != 1:
        raise Invalid(f"{item.path} must have one of {', '.join(Test)}; it has {', '.join(given) or 'none'}")
    test = given[0]
    values = item.texts(test) if test is Test.IN else (item.text(test),)
    if test is Test.MATCHES:
        try:
            compile_pattern(values[0])
        except Invalid as error:
            raise Invalid(f"{item.at(test)} {values[0]!r} {error.message}") from None
    found = Condition(step=item.text("step"), test=test, values=values)
    item.done()
    return found


def _read_array(item: Reader | None) -> Array | None:
    if item is None:
        return None
    given = [field for field in ("count", "items", "from") if item.has(field)]
    if len(given) != 1:
        raise Invalid(f"{item.path} must have one of count, items and from; it has {', '.join(given) or 'none'}")
    found = Array(
        count=item.whole("count"), items=item.texts("items"), source=item.text("from"),
        most_running=item.whole("maxRunning"),
    )  # fmt: skip
    item.done()
    if any("\0" in one or len(one.encode()) > MOST_VALUE_BYTES for one in found.items):
        raise Invalid(f"{item.at('items')} has an item with a NUL or of more than {MOST_VALUE_BYTES} bytes; shorten it")
    many = len(found.items) or found.count
    if not found.source and not 1 <= many <= MOST_ELEMENTS:
        raise Invalid(f"{item.path} is of {many} elements; it must be of 1 to {MOST_ELEMENTS}")
    return found


def _check_steps(spec: DagSpec) -> None:
    names = Counter(step.name for step in spec.steps)
    if twice := [name for name, count in names.items() if count > 1]:
        raise Invalid(f"DAG {spec.name!r} has two steps {twice[0]!r}; give each its own name")
    of = {step.name: step for step in spec.steps}
    with_result = {step.name: result_variable(step.name) for step in spec.steps if step.job.result}
    for step in spec.steps:
        sources = [condition.step for condition in step.conditions]
        if step.array is not None and step.array.source:
            sources.append(step.array.source)
        for source in sources:
            if source not in step.after:
                raise Invalid(f"step {step.name!r} looks at the result of {source!r}; name that in its after too")
            if source in of and not of[source].job.result:
                raise Invalid(f"step {step.name!r} looks at the result of {source!r}, which has none; give it a result")
        told = [name for name in step.after if name in with_result]
        variables = Counter(with_result[name] for name in told)
        if len(variables) < len(told):
            both = [name for name in told if variables[with_result[name]] > 1]
            raise Invalid(
                f"step {step.name!r} comes after {both[0]!r} and {both[1]!r}, whose results would both be "
                f"{with_result[both[0]]}; rename one"
            )


def write_dag(spec: DagSpec, config: Config) -> dict[str, Json]:
    shown: dict[str, Json] = {"name": spec.name, "description": spec.description, "disabled": spec.disabled}
    if spec.schedule is not None:
        shown |= {"schedule": spec.schedule, "scheduleTimeZone": spec.time_zone}
    shown |= {
        "concurrencyPolicy": str(spec.concurrency), "owner": spec.owner, "webhook": spec.webhook,
        "parameters": [
            {"name": p.name} | ({} if p.default is None else {"default": p.default}) for p in spec.parameters
        ],
        "steps": [_write_step(step, config) for step in spec.steps],
    }  # fmt: skip
    return shown


def _write_step(step: Step, config: Config) -> dict[str, Json]:
    job = write_job(step.job, Progress(), "", config)
    shown: dict[str, Json] = {"name": step.name, **{field: job[field] for field in _WRITTEN if field in job}}
    shown |= {"runAsUser": step.job.user, "after": list(step.after), "when": str(step.when)}
    shown |= {"cpus": step.job.cpus, "mem": step.job.mem_mb, "disk": step.job.disk_mb}
    if step.conditions:
        shown["if"] = [
            {"step": c.step, str(c.test): list(c.values) if c.test is Test.IN else c.values[0]} for c in step.conditions
        ]
    if step.array is not None:
        array = step.array
        shown["array"] = {"maxRunning": array.most_running} | (
            {"from": array.source} if array.source else {"items": list(array.items)} if array.items
            else {"count": array.count}
        )  # fmt: skip
    if step.job.result:
        shown["result"] = step.job.result
    return shown
