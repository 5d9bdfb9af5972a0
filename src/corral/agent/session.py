"""The agent's side of a session with a master: registration, signs of life, whose orders count.

Rules: the first report of a session tells everything; orders of another session, before `Registered`, or of an epoch
lower than the highest ever seen are ignored. A master that falls silent for five pings is left and dialled anew.
"""

from corral.agent import tasks, updates
from corral.agent.effects import Reconnect, Send
from corral.agent.spec import Connected, Disconnected
from corral.agent.state import AgentState, save_identity
from corral.model.agent import AgentInfo
from corral.model.ids import FrameworkId
from corral.model.orders import AgentExecutor, AgentTask, Ping, Pong, Refused, Register, Registered
from corral.runtime.core import CancelTimer, Effect, Note, SetTimer

REGISTER_TIMER = "register"
PULSE_TIMER = "pulse"
SILENT_PINGS = 5
REFUSED_RETRY_S = 60.0


def connect(state: AgentState, input: Connected, now: float) -> list[Effect]:
    """Tell the master everything that is here."""
    updates.hush(state)
    state.session = input.session
    state.life = state.life or input.session
    state.master = input.master
    state.registered = False
    state.heard_at = state.spoke_at = now
    state.counters["sessions"] += 1
    return [Send(describe(state)), SetTimer(REGISTER_TIMER, state.config.register_timeout_s)]


def describe(state: AgentState) -> Register:
    """All that a master has to learn of this agent."""
    found = [task for _, task in sorted(state.tasks.items())]
    executors = [executor for _, executor in sorted(state.executors.items())]
    frameworks = sorted({*(task.framework_id for task in found), *(each.framework_id for each in executors)})
    return Register(
        describe_agent(state),
        tuple(AgentTask(t.info, t.framework_id, t.role, t.state, t.latest) for t in found),
        tuple(state.frameworks[FrameworkId(f)] for f in frameworks),
        tuple(AgentExecutor(e.info, e.framework_id, e.role) for e in executors),
        state.life,
        state.counters["sessions"],
    )


def describe_agent(state: AgentState) -> AgentInfo:
    """Shapes: `runtimes` are those that can start tasks now."""
    config = state.config
    return AgentInfo(
        hostname=config.hostname,
        port=config.port,
        resources=state.resources,
        id=state.identity.agent_id,
        ip=config.ip,
        attributes=config.attributes,
        domain=config.domain,
        version=config.version,
        runtimes=tuple(name for name, runtime in state.runtimes.items() if runtime.why is None),
        unready_runtimes=tuple(name for name, runtime in state.runtimes.items() if runtime.why is not None),
    )


def disconnect(state: AgentState, input: Disconnected, now: float) -> list[Effect]:
    """The tasks run on; the link dials again by itself."""
    if input.session != state.session:
        return []
    updates.hush(state)
    state.session = None
    state.registered = False
    return [Note("master lost", input.why, "warning"), CancelTimer(REGISTER_TIMER), CancelTimer(PULSE_TIMER)]


def listens(state: AgentState, session: str, epoch: int, *, registering: bool) -> bool:
    """Whether an order counts."""
    return session == state.session and epoch >= state.identity.epoch and (registering or state.registered)


def overrule(state: AgentState, session: str, epoch: int, what: str) -> list[Effect]:
    """An order that does not count; a master whose reign is over is left."""
    if session != state.session:
        return []
    if epoch >= state.identity.epoch:
        return [Note("order ignored", f"{what} came before the registration was answered", "warning")]
    why = (
        f"the master speaks with epoch {epoch}, this agent has followed one with {state.identity.epoch}; if the"
        " cluster's store was set up anew, stop the agent, end its tasks and empty its work directory"
    )
    return [Note("master ignored", why, "warning", {"epoch": epoch}), Reconnect(why, 1.0)]


def register(state: AgentState, order: Registered, now: float) -> list[Effect]:
    """The master has this agent in its list: every update that waits is told at once."""
    effects = save_identity(state, agent_id=order.agent_id, epoch=order.epoch)
    state.registered = True
    state.cutoff.answers = order.answers
    state.ping_s = order.ping_s
    effects += [CancelTimer(REGISTER_TIMER), SetTimer(PULSE_TIMER, state.ping_s)]
    facts = {"agent": order.agent_id, "epoch": order.epoch, "tasks": len(state.tasks)}
    effects.append(Note("registered", facts=facts))
    return effects + updates.tell_all(state, now)


def refuse(state: AgentState, order: Refused, now: float) -> list[Effect]:
    """Stay away for a while; the tasks run on, unless the master has declared them over."""
    ends: list[Effect] = []
    for framework_id in sorted(state.frameworks) if order.end_tasks else ():
        ends += tasks.shut_down(state, framework_id, now)
    return [
        *ends,
        Note("registration refused", order.why, "error", {"epoch": order.epoch}),
        Reconnect(order.why, REFUSED_RETRY_S),
    ]


def answer(state: AgentState, order: Ping, now: float) -> list[Effect]:
    state.spoke_at = now
    return [Send(Pong())]


def time_out(state: AgentState) -> list[Effect]:
    if state.session is None or state.registered:
        return []
    why = f"the master did not answer the registration within {state.config.register_timeout_s:g} s"
    return [Note("registration timed out", why, "warning"), Reconnect(why)]


def pulse(state: AgentState, now: float) -> list[Effect]:
    """Once per ping: show life when nothing else was said, and see whether the master still does."""
    if not state.registered:
        return []
    silent_s = now - state.heard_at
    if silent_s > SILENT_PINGS * state.ping_s:
        why = f"nothing was heard of the master for {silent_s:.0f} s"
        return [Note("master silent", why, "warning"), Reconnect(why)]
    effects: list[Effect] = [SetTimer(PULSE_TIMER, state.ping_s)]
    if now - state.spoke_at >= state.ping_s:
        state.spoke_at = now
        effects.append(Send(Pong()))
    return effects


def renew(state: AgentState, why: str) -> list[Effect]:
    """Register again, because what this agent can do has changed."""
    return [Reconnect(why)] if state.connecting else []
