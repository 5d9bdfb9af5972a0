"""The life of a standalone container: a command or an image that a tool runs here, without a framework.

Rules: it is on disk before it is started, outlives the agent as tasks do, and once ended is kept, for its end to be
asked for, until it is removed, its sandbox is collected or too many have ended. It takes nothing of what the master
offers; its resources are limits alone. Source: Mesos v1, agent operator API, LAUNCH_CONTAINER and those about it.
"""

from corral.agent import tasks
from corral.agent.deadlines import Due
from corral.agent.effects import Abort, CancelFetch, DeleteSandbox, Discard, Fetch, Kill, Remove, Start, Wait
from corral.agent.execution import choose_runtime, plan_standalone, standalone_path
from corral.agent.spec import (
    ContainerView,
    Event,
    Exited,
    Fetched,
    KillFailed,
    Sandbox,
    Stage,
    Started,
    StartFailed,
    WaitFailed,
)
from corral.agent.standalone_spec import (
    AwaitContainer,
    EndContainer,
    LaunchContainer,
    RemoveContainer,
    StandaloneCommand,
    StandaloneRecord,
    StandaloneRun,
)
from corral.agent.standalone_state import Standalone
from corral.agent.state import AgentState
from corral.lib.errors import Conflict, CorralError, Failed, Invalid, NotFound, Unavailable
from corral.lib.ids import mint_uuid
from corral.model.execution import Exit, Found, Launched
from corral.model.ids import ContainerId, ExecutorId, FrameworkId
from corral.model.operations import is_volume
from corral.model.task import ContainerStatus
from corral.runtime.core import Effect, Loaded, Note, Refuse, Reply, decode_records

MOST_ENDED = 256
"""How many that have ended are remembered; the oldest goes with its sandbox."""


def answer(state: AgentState, ask: int, command: StandaloneCommand, now: float) -> list[Effect]:
    match command:
        case LaunchContainer():
            return _launch(state, ask, command, now)
        case EndContainer():
            return [*_end(state, find(state, command.id), now), Reply(ask)]
        case AwaitContainer():
            one = find(state, command.id)
            if one.exit is not None:
                return [Reply(ask, one.exit)]
            one.waiting.append(ask)
            return []
        case RemoveContainer():
            one = find(state, command.id)
            if one.live:
                raise Conflict(f"container {one.id} still runs; kill it first")
            return [*state.standalone.forget(one), DeleteSandbox(one.sandbox, "its container was removed"), Reply(ask)]


def find(state: AgentState, id: ContainerId) -> Standalone:
    """Errors: `NotFound`."""
    one = state.standalone.found.get(id)
    if one is None:
        raise NotFound(f"Container '{id}' cannot be found")
    return one


# Launching.


def _launch(state: AgentState, ask: int, command: LaunchContainer, now: float) -> list[Effect]:
    info = command.info
    id = ContainerId(info.task_id)
    if id in state.standalone.found or id in state.by_container or id in state.executor_containers:
        return [Reply(ask, False)]
    inner = ContainerId(mint_uuid(state.random))
    record = StandaloneRecord(info, inner, choose_runtime(info), standalone_path(state.config.work_dir, id, inner))
    one = Standalone(record)
    _check(state, one)
    one.plan = plan_standalone(state.config, state.identity.agent_id, record)
    one.launching = ask
    state.standalone.add(one)
    note = Note("container launched", "a tool asked for it", facts=_facts(one))
    if info.command is not None and info.command.uris:
        one.move(Event.FETCH)
        state.deadlines.set(inner, Due.STAGE, now + state.config.fetch_timeout_s)
        why = f"{len(info.command.uris)} uris come before the start"
        return [*one.save(), note, Fetch(inner, one.sandbox, info.command.uris, one.plan.owner, why)]
    return [note, *_start(state, one, now)]


def _check(state: AgentState, one: Standalone) -> None:
    info = one.info
    secrets = info.command.secrets if info.command is not None else ()
    volumes = info.container.volumes if info.container is not None else ()
    if info.unsupported:
        raise Invalid(
            f"container {one.id} asks for {', '.join(info.unsupported)}, which agents cannot do; leave it out"
        )
    if info.command is None and (info.container is None or info.container.docker is None):
        raise Invalid(f"container {one.id} has neither a command nor an image of its own; give it command.value")
    if secrets or any(volume.secret is not None for volume in volumes):
        raise Invalid(f"container {one.id} asks for secrets, which belong to roles; launch a task for that")
    if any(map(is_volume, info.resources)):
        raise Invalid(f"container {one.id} asks for a persistent volume, which belongs to a role; mount a host path")
    if one.runtime not in state.runtimes:
        raise Invalid(
            f"container {one.id} needs the {one.runtime} runtime but agent {state.config.hostname} has only"
            f" {', '.join(state.runtimes)}; start the agent with --runtime {one.runtime} or launch it elsewhere"
        )
    why = state.runtimes[one.runtime].why
    if why is not None:
        raise Unavailable(f"container {one.id} needs the {one.runtime} runtime: {why}")
    if state.identity.agent_id is None:
        raise Unavailable("this agent has not registered with a master yet; try again in a moment")


def _start(state: AgentState, one: Standalone, now: float) -> list[Effect]:
    one.move(Event.START)
    state.deadlines.set(one.inner, Due.STAGE, now + state.config.start_timeout_s)
    planned, one.plan = one.plan, None
    assert planned is not None
    why = "a tool asked for it"
    return [*one.save(), Start(one.runtime, planned.execution, planned.directories, planned.owner, why)]


def fetched(state: AgentState, input: Fetched, now: float) -> list[Effect]:
    one = state.standalone.by_inner[input.container_id]
    if one.stage is not Stage.FETCHING:
        return []
    state.deadlines.cancel(one.inner, Due.STAGE)
    if input.why is not None:
        return _give_up(state, one, Failed(f"container {one.id} did not start: {input.why}"), now)
    return _start(state, one, now)


def started(state: AgentState, input: Started, now: float) -> list[Effect]:
    one = state.standalone.by_inner[input.launched.container_id]
    if not one.move(Event.STARTED):
        return []
    return _settle_running(state, one, input.launched, now)


def _settle_running(state: AgentState, one: Standalone, launched: Launched, now: float) -> list[Effect]:
    one.launched = launched
    state.deadlines.cancel(one.inner, Due.STAGE)
    effects: list[Effect] = [one.save_run(), Wait(one.runtime, one.inner)]
    if one.launching is not None:
        effects.append(Reply(one.launching, True))
        one.launching = None
    return [*effects, *_kill(state, one, now)] if one.doomed else effects


def start_failed(state: AgentState, input: StartFailed, now: float) -> list[Effect]:
    one = state.standalone.by_inner[input.container_id]
    if one.stage is not Stage.STARTING:
        return []
    effects = _give_up(state, one, Failed(f"container {one.id} did not start: {input.why}"), now)
    return [*effects, Remove(one.runtime, one.inner)]


def _give_up(state: AgentState, one: Standalone, error: CorralError, now: float) -> list[Effect]:
    """It never ran: whoever asks for it later finds none, and may launch it anew."""
    state.deadlines.forget(one.inner)
    state.counters["launch_errors"] += 1
    state.ended.append(Sandbox(one.sandbox, one.inner, now))
    asks = [*one.waiting, *([one.launching] if one.launching is not None else [])]
    effects: list[Effect] = [*state.standalone.forget(one), *(Refuse(ask, error) for ask in asks)]
    return [*effects, Note("container not launched", error.message, "warning", _facts(one))]


# Ending.


def _end(state: AgentState, one: Standalone, now: float) -> list[Effect]:
    if not one.live:
        return []
    match one.stage:
        case Stage.RUNNING:
            one.doomed = True
            return [one.save_run(), *_kill(state, one, now)]
        case Stage.STARTING:
            again, one.doomed = one.doomed, True
            return [] if again else [one.save_run(), Abort(one.inner, "it was killed before it ran")]
        case _:
            error = Failed(f"container {one.id} was killed before it ran")
            return [CancelFetch(one.inner, error.message), *_give_up(state, one, error, now)]


def _kill(state: AgentState, one: Standalone, now: float) -> list[Effect]:
    state.deadlines.set(one.inner, Due.KILL, now + state.config.kill_retry_s)
    return [Kill(one.runtime, one.inner, 0.0, "a tool asked for its end")]


def exited(state: AgentState, input: Exited, now: float) -> list[Effect]:
    one = state.standalone.by_inner[input.exit.container_id]
    return settle_exit(state, one, input.exit, now) if one.live else []


def settle_exit(state: AgentState, one: Standalone, exit: Exit, now: float) -> list[Effect]:
    """It has ended: its runtime may forget it."""
    return [*_conclude(state, one, exit, now), Remove(one.runtime, one.inner)]


def _conclude(state: AgentState, one: Standalone, exit: Exit, now: float) -> list[Effect]:
    """Remember its end and tell whoever waits."""
    one.stage, one.exit, one.unsettled = Stage.ENDED, exit, False
    state.deadlines.forget(one.inner)
    state.ended.append(Sandbox(one.sandbox, one.inner, now))
    effects: list[Effect] = [one.save_run(), *(Reply(ask, exit) for ask in one.waiting)]
    one.waiting.clear()
    return [*effects, Note("container ended", exit.message, facts=_facts(one)), *_forget_oldest(state)]


def _forget_oldest(state: AgentState) -> list[Effect]:
    ended = [one for one in state.standalone.found.values() if not one.live]
    effects: list[Effect] = []
    for one in ended[: max(0, len(ended) - MOST_ENDED)]:
        effects += [*state.standalone.forget(one), DeleteSandbox(one.sandbox, f"{MOST_ENDED} others ended after it")]
    return effects


def collected(state: AgentState, inner: ContainerId) -> list[Effect]:
    """Its sandbox is deleted for its age, and with that it is forgotten."""
    one = state.standalone.by_inner.get(inner)
    return state.standalone.forget(one) if one is not None and not one.live else []


def wait_failed(state: AgentState, input: WaitFailed, now: float) -> list[Effect]:
    """The runtime lost sight of it: ask again, unless nobody will ever know."""
    one = state.standalone.by_inner[input.container_id]
    if not one.live:
        return []
    if input.gone:
        return settle_exit(state, one, Exit(container_id=one.inner, message=input.why, at=now), now)
    state.deadlines.set(one.inner, Due.WAIT, now + tasks.WAIT_RETRY_S)
    return [Note("container out of sight", f"{input.why}; it is asked for again", "warning", _facts(one))]


def kill_failed(state: AgentState, input: KillFailed) -> list[Effect]:
    """The deadline of the kill tries again."""
    one = state.standalone.by_inner[input.container_id]
    return [Note("kill failed", f"{input.why}; it is tried again", "warning", _facts(one))] if one.live else []


def fall_due(state: AgentState, inner: ContainerId, due: Due, now: float) -> list[Effect]:
    one = state.standalone.by_inner[inner]
    match due:
        case Due.WAIT if one.live:
            return [Wait(one.runtime, inner)]
        case Due.KILL if one.live:
            return _kill(state, one, now)
        case Due.STAGE if one.stage is Stage.FETCHING:
            error = Failed(f"container {one.id} did not start: fetching its uris took too long")
            return [CancelFetch(inner, error.message), *_give_up(state, one, error, now)]
        case Due.STAGE if one.stage is Stage.STARTING:
            error = Failed(f"container {one.id} did not start: {one.runtime} took too long")
            effects = _give_up(state, one, error, now)
            return [Abort(inner, error.message), *effects, Discard(one.runtime, inner, error.message)]
        case _:
            return []


# Recovery.


def load(state: AgentState, input: Loaded) -> None:
    """Those of an earlier process; the runtimes are asked what has become of them."""
    runs = decode_records(input, "container-runs/", StandaloneRun)
    for id, record in decode_records(input, "containers/", StandaloneRecord).items():
        one = Standalone(record)
        one.take_up(runs[id])
        state.standalone.add(one)


def settle_found(state: AgentState, one: Standalone, found: Found, now: float) -> list[Effect]:
    """The runtime knows it: go on from what it says."""
    one.unsettled = False
    if found.exit is not None:
        return settle_exit(state, one, found.exit, now)
    if one.stage is Stage.STARTING and found.launched is not None:
        one.move(Event.STARTED)
        return _settle_running(state, one, found.launched, now)
    if one.stage is not Stage.RUNNING:
        return [*settle_missing(state, one, now), Discard(one.runtime, one.inner, "it was half started")]
    wait: list[Effect] = [Wait(one.runtime, one.inner)]
    return [*wait, *_kill(state, one, now)] if one.doomed else wait


def settle_missing(state: AgentState, one: Standalone, now: float) -> list[Effect]:
    """The runtime does not know it."""
    one.unsettled = False
    if one.stage is not Stage.RUNNING:
        return _give_up(state, one, Failed("the agent was restarted before it ran"), now)
    why = f"the {one.runtime} runtime knows it no more; the node was rebooted or somebody removed it"
    return _conclude(state, one, Exit(container_id=one.inner, message=why, at=now), now)


def recover(state: AgentState, runtime: str, seen: set[ContainerId], now: float) -> list[Effect]:
    """Settle those that the runtime, which was heard now, does not hold."""
    effects: list[Effect] = []
    for _, one in sorted(state.standalone.found.items()):
        if one.unsettled and one.runtime == runtime and one.inner not in seen:
            effects += settle_missing(state, one, now)
    return effects


# Views.


def view(one: Standalone) -> ContainerView:
    launched = one.launched
    pid = launched.pid if launched is not None else None
    return ContainerView(
        id=one.id,
        inner=one.inner,
        parent=None,
        framework=FrameworkId(""),
        executor=ExecutorId(""),
        name="",
        runtime=one.runtime,
        sandbox=one.sandbox,
        runs=one.stage is Stage.RUNNING,
        status=ContainerStatus(container_id=one.id, executor_pid=pid),
        resources=one.info.resources,
        limits=one.info.limits,
        standalone=True,
    )


def list_views(state: AgentState) -> list[ContainerView]:
    return [view(one) for _, one in sorted(state.standalone.found.items()) if one.live]


def _facts(one: Standalone) -> dict[str, str]:
    return {"container": one.id, "inner": one.inner}
