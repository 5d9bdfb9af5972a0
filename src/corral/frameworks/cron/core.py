"""The cron framework: fires every job when it is due and sees each firing through to its end.

`handle` only says which family an input belongs to; `firing.settle` then looks at whatever the input touched.
Source: DESIGN, frameworks; Chronos' contract.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from corral.frameworks.cron import admission, commands, ending, firing, offers, recovery, updates, views
from corral.frameworks.cron.check import CheckJobs
from corral.frameworks.cron.dags import commands as dag_commands
from corral.frameworks.cron.dags import views as dag_views
from corral.frameworks.cron.dags.spec import READS as DAG_READS
from corral.frameworks.cron.dags.spec import (
    DagCommand,
    DeleteDag,
    GetDag,
    GetDagRun,
    GetDagRuns,
    GetDags,
    KillDag,
    PlanDag,
    PutDag,
    ResumeDag,
    StartDag,
)
from corral.frameworks.cron.spec import (
    READS,
    AddElements,
    Command,
    Config,
    DeleteJob,
    FindLog,
    GetGraph,
    GetHistory,
    GetJob,
    GetJobs,
    GetLeader,
    GetMetrics,
    GetNext,
    GetStat,
    GetStats,
    GetSummary,
    KillRuns,
    MarkSuccess,
    PurgeQueue,
    PutJob,
    ReportTask,
    RunJob,
    RunState,
    SearchJobs,
    StartBackfill,
    StopBackfill,
)
from corral.frameworks.cron.state import State
from corral.lib.errors import NotFound
from corral.model import calls, events
from corral.model.ids import TaskId
from corral.runtime.core import Asked, Effect, Loaded, Reply, Tick
from corral.sdk import answers, node_records, notices
from corral.sdk.effects import Notified
from corral.sdk.scheduler import CallFailed, Disconnected

Input = (
    Loaded | Tick | Asked[Command | CheckJobs | DagCommand] | Notified | Disconnected | CallFailed | events.Subscribed
    | events.Offers | events.Rescind | events.Update | events.Message | events.Explanations | events.Failure
    | events.Error | events.Heartbeat
)  # fmt: skip
"""Everything that the loop of this framework may be told; some of it the session around the core answers alone."""


class CronCore:
    """The deciding half of the cron framework."""

    __slots__ = ("state",)
    reads = READS + DAG_READS

    def __init__(self, config: Config, random: Random) -> None:
        self.state = State(config, random)

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        effects = [*self._decide(input, now), *firing.settle(self.state, now)]
        return effects + self.state.node_memory.settle()

    def invariants(self) -> None:
        self.state.invariants()

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        for job in self.state.jobs.values():
            for run in job.live:
                # The task of a run that awaits its report has ended, and nobody need be asked about it.
                if run.state is not RunState.REPORTING and run.task_id is not None:
                    yield calls.ReconcileTask(task_id=run.task_id, agent_id=run.agent_id)

    def is_live(self, task_id: TaskId) -> bool:
        return self.state.find(task_id) is not None

    def unheard_s(self, now: float) -> float:
        return self.state.patience.unheard_s(now)

    def _decide(self, input: Any, now: float) -> list[Effect]:
        state = self.state
        match input:
            case events.Update():
                return updates.update(state, input, now)
            case events.Offers():
                return [*offers.take_offers(state, input, now), *admission.release(state, now)]
            case Asked():
                return self._command(input.ask, input.command, now)
            case Tick(name=firing.FIRE):
                return firing.fire(state, now)
            case Tick(name=firing.WORK):
                return [*commands.let_go(state, now), *offers.work_off(state, now)]
            case Tick(name=firing.WANTS):
                return offers.say_wants(state, now)
            case Tick(name=ending.SWEEP):
                return ending.kill_again(state)
            case Tick(name=firing.PATIENCE):
                return firing.look_for_waiting(state, now)
            case Tick(name=admission.HELD):
                return admission.release(state, now)
            case Tick(name=node_records.KEEP | node_records.FADE as name):
                return state.node_memory.tick(name, now)
            case Tick(name=firing.PRUNE):
                return firing.prune(state, now)
            case Tick(name=name) if name.startswith(notices.NOTICE):
                return notices.retry(state.notices, name.removeprefix(notices.NOTICE))
            case Notified():
                return notices.notified(state.notices, input)
            case events.Explanations():
                return [*offers.take_explanations(state, input), *admission.release(state, now)]
            case events.Rescind():
                state.backlog.drop(input.offer_id)
                return []
            case events.InverseOffers():
                return answers.agree(input)
            case events.Subscribed():
                return updates.subscribed(state, input)
            case Disconnected():
                state.disconnect()
                return admission.release(state, now)
            case Loaded():
                return recovery.load(state, input, now)
            case _:
                return []

    def _command(self, ask: int, command: Command | CheckJobs | DagCommand, now: float) -> list[Effect]:
        state = self.state
        match command:
            case PutJob() | PutDag():
                return admission.put(state, ask, command, now)
            case PlanDag() | CheckJobs():
                return admission.plan(state, ask, command, now)
            case DeleteJob():
                return commands.delete(state, ask, command, now)
            case RunJob():
                return commands.run(state, ask, command, now)
            case MarkSuccess():
                return commands.mark_success(state, ask, command, now)
            case KillRuns():
                return commands.kill_runs(state, ask, command, now)
            case PurgeQueue():
                return commands.purge(state, ask, now)
            case ReportTask():
                return commands.report(state, ask, command, now)
            case AddElements():
                return commands.add_elements(state, ask, command, now)
            case StartBackfill():
                return commands.start_backfill(state, ask, command, now)
            case StopBackfill():
                return commands.stop_backfill(state, ask, command)
            case DeleteDag():
                return dag_commands.delete(state, ask, command, now)
            case StartDag():
                return dag_commands.start_run(state, ask, command, now)
            case ResumeDag():
                return dag_commands.resume_run(state, ask, command, now)
            case KillDag():
                return dag_commands.kill_run(state, ask, command, now)
            case _:
                return [Reply(ask, self._view(command, now))]

    def _view(self, command: Command | CheckJobs | DagCommand, now: float) -> Any:
        state = self.state
        match command:
            case GetJobs():
                return views.view_jobs(state)
            case SearchJobs():
                return views.search(state, command)
            case GetSummary():
                return views.view_summary(state, now)
            case GetJob():
                return views.view_job(state, commands.need_job(state, command.name))
            case GetNext():
                return views.view_next(state, command, now)
            case GetStat():
                return views.view_stat(state, command, now)
            case GetStats():
                return views.view_stats(state, command.which)
            case GetHistory():
                return views.view_history(state, command, now)
            case FindLog():
                return views.find_log(state, command)
            case GetGraph():
                return views.view_dot(state) if command.form == "dot" else views.view_csv(state)
            case GetMetrics():
                return views.view_metrics(state, now)
            case GetDags():
                return dag_views.view_dags(state, now)
            case GetDag():
                return dag_views.view_dag(state, command.name, now)
            case GetDagRuns():
                return dag_views.view_runs(state, command)
            case GetDagRun():
                return dag_views.view_run(state, command.run, now)
            case GetLeader():
                return {"leader": state.config.address}
            case _:
                raise NotFound(f"command {type(command).__name__} is not known to the cron framework")
