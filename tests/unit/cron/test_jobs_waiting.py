"""Nothing of cron waits without a reason, and what can never run is refused when it is submitted."""

from typing import Any

import msgspec
import pytest
from cron_driver import Cluster

from corral.frameworks.cron import admission
from corral.frameworks.cron.check import CheckJobs
from corral.frameworks.cron.chronos import ReadJob, read_job
from corral.frameworks.cron.dags.dialect import read_dag
from corral.frameworks.cron.dags.spec import GetDagRun, PlanDag, PutDag, StartDag
from corral.frameworks.cron.spec import GetMetrics, GetSummary, PutJob
from corral.lib.errors import CorralError, Invalid, Unprocessable
from corral.model import events
from corral.model.ids import WantId
from corral.model.offer import Explanation, Refusal
from corral.runtime.core import Asked
from corral.sdk.patience import LOOK_S

FAR = "R/2036-01-01T00:00:00Z/P1D"


def explain(cluster: Cluster, *, never: bool = False, agents: int = 3, fits_if: tuple[str, ...] = ()) -> None:
    """The master says of all that is wanted why it waits."""
    refusal = Refusal(reason="mem", detail="wants mem 9000, the most free is 4096 on n1", agents=agents, best="n1")
    cluster.send(
        events.Explanations(
            explanations=tuple(
                Explanation(
                    want_id=WantId(want_id), framework_id="F", role="*", waiting=1, since_at=cluster.now, agents=agents,
                    refusals=(refusal,) if agents else (), never=never, fits_if=fits_if,
                )
                for want_id in cluster.wants
            )
        )
    )  # fmt: skip


def submit(cluster: Cluster, command: Any) -> int:
    """Ask without waiting for the answer; returns its number."""
    cluster._asks += 1
    cluster.send(Asked(cluster._asks, command))
    return cluster._asks


def job(name: str = "big", **fields: Any) -> PutJob:
    body = {"name": name, "command": "true", "schedule": FAR, "mem": 9000, **fields}
    return PutJob(spec=read_job(body).spec, check=True)


def why(cluster: Cluster, name: str) -> str:
    rows = {row["name"]: row for row in cluster.ask(GetSummary())["jobs"]}
    text: str = rows[name].get("why", "")
    assert text == cluster.history(name)["why"]
    return text


# Reasons.


def test_a_firing_that_waits_says_why_at_every_stage(cluster: Cluster) -> None:
    cluster.put("a", schedule=FAR, retries=1, retryDelay=60)
    assert why(cluster, "a") == ""
    cluster.run_now("a")
    assert why(cluster, "a") == "it waits for its turn among 1"
    explain(cluster, fits_if=("mem ≤ 4096",))
    assert why(cluster, "a") == "wants mem 9000, the most free is 4096 on n1 (3 agents); it fits if mem ≤ 4096"
    explain(cluster, never=True)
    assert why(cluster, "a").startswith("no agent could ever run it: wants mem 9000")
    (task,) = cluster.start()
    assert why(cluster, "a") == ""
    cluster.run_now("a", "other arguments")
    assert why(cluster, "a") == f"its run {task} is not over, and its runs do not overlap (forbid)"
    cluster.fail(task)
    assert "attempt 2 is made at 2026-01-01T00:01" in why(cluster, "a")
    cluster.disconnect()
    cluster.advance(70)
    assert why(cluster, "a") == "the framework is not connected to a master"


def test_a_reason_that_was_told_before_a_run_came_to_wait_anew_still_holds(cluster: Cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    explain(cluster)
    cluster.kill("a")
    cluster.run_now("a")
    cluster.settle()
    assert why(cluster, "a").startswith("wants mem 9000")


def test_a_step_that_waits_says_for_what(cluster: Cluster) -> None:
    steps = [{"name": "first", "command": "true"}, {"name": "then", "command": "true", "after": ["first"]}]
    cluster.ask(PutDag(spec=read_dag({"name": "d", "steps": steps})))
    run_id, _ = cluster.ask(StartDag(name="d"))
    cluster.settle()
    explain(cluster)
    first, then = cluster.ask(GetDagRun(run=run_id))["steps"]
    assert first["why"].startswith("wants mem 9000, the most free is 4096 on n1")
    assert then["why"] == "it comes after first"
    cluster.start()
    assert cluster.ask(GetDagRun(run=run_id))["steps"][0]["why"] == ""


# What waits long.


def test_a_firing_that_waits_long_is_told_of_once_and_counted(cluster: Cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    explain(cluster)
    cluster.advance(299)
    assert cluster.told("jobs wait long") == []
    assert cluster.ask(GetMetrics())["gauges"]["queue.oldest.seconds"]["value"] == pytest.approx(299, abs=1)
    cluster.advance(1000)
    (note,) = cluster.told("jobs wait long")
    assert (note.facts["job"], note.why) == ("a", "wants mem 9000, the most free is 4096 on n1 (3 agents)")
    cluster.cycle()
    assert cluster.ask(GetMetrics())["gauges"]["queue.oldest.seconds"]["value"] == 0


def test_a_scheduled_firing_waits_since_it_was_due_even_over_a_crash(cluster: Cluster) -> None:
    cluster.put("a", schedule="R/2026-01-01T00:10:00Z/P1D")
    cluster.advance(1200)
    assert cluster.ask(GetMetrics())["gauges"]["queue.oldest.seconds"]["value"] == pytest.approx(600, abs=1)
    cluster.recover()
    assert cluster.ask(GetMetrics())["gauges"]["queue.oldest.seconds"]["value"] == pytest.approx(600, abs=2)


def test_a_master_that_says_nothing_of_what_waits_is_noticed(cluster: Cluster) -> None:
    cluster.put("a", schedule=FAR)
    cluster.run_now("a")
    cluster.advance(LOOK_S + 45)
    assert cluster.core.unheard_s(cluster.now) == pytest.approx(45, abs=1)
    explain(cluster)
    cluster.advance(LOOK_S)
    assert cluster.core.unheard_s(cluster.now) == 0


# Submission.


def test_a_job_that_no_agent_could_run_is_refused_with_what_is_there_and_what_to_do(cluster: Cluster) -> None:
    ask = submit(cluster, job())
    cluster.settle()
    assert ask not in cluster.replies
    (want,) = cluster.wants.values()
    assert (want.count, want.preempts) == (1, False)
    explain(cluster, never=True)
    refused = cluster.replies.pop(ask)
    assert isinstance(refused, Unprocessable)
    for part in ("'big'", "wants mem 9000, the most free is 4096 on n1", "ask for less", "?check=false"):
        assert part in refused.message
    assert cluster.job_names() == []
    cluster.settle()
    assert cluster.wants == {}


def test_a_job_is_taken_as_soon_as_an_agent_could_run_it_and_the_next_of_its_shape_at_once(cluster: Cluster) -> None:
    ask = submit(cluster, job())
    cluster.settle()
    offers = cluster.make_offers()
    cluster.send(events.Offers(offers=offers))
    assert cluster.replies.pop(ask) == ""
    assert cluster.declined == [offers[0].id]
    assert cluster.ask(job("second")) == ""


def test_a_cluster_that_is_full_is_no_reason_to_refuse(cluster: Cluster) -> None:
    ask = submit(cluster, job())
    cluster.settle()
    explain(cluster, never=False)
    assert cluster.replies.pop(ask) == ""


@pytest.mark.parametrize("agents", [0, None])
def test_without_agents_or_a_word_of_the_master_the_job_is_taken_with_a_notice(cluster: Cluster, agents: Any) -> None:
    ask = submit(cluster, job())
    cluster.settle()
    if agents is not None:
        explain(cluster, agents=agents, never=False)
    cluster.advance(cluster.config.check_s + 0.3)
    assert cluster.replies.pop(ask) == admission.UNKNOWN
    assert len(cluster.told("job waits for an agent")) == 1
    assert cluster.job_names() == ["big"]


def test_what_is_held_is_decided_when_the_master_goes_away(cluster: Cluster) -> None:
    ask = submit(cluster, job())
    cluster.settle()
    cluster.disconnect()
    assert cluster.replies.pop(ask) == admission.UNKNOWN


def test_what_is_wrong_in_itself_is_refused_before_anybody_is_asked(cluster: Cluster) -> None:
    with pytest.raises(Invalid, match="nobody"):
        cluster.ask(job(schedule=None, parents=["nobody"]))
    cluster.settle()
    assert cluster.wants == {}


def test_a_job_that_shall_not_fire_or_asks_what_it_did_is_not_asked_about(cluster: Cluster) -> None:
    assert cluster.ask(job(disabled=True)) == ""
    assert cluster.ask(job(disabled=False, command="another")) == ""
    ask = submit(cluster, job(mem=9001))
    cluster.settle()
    assert ask not in cluster.replies


def test_two_that_wait_for_the_same_word_both_hear_it(cluster: Cluster) -> None:
    asks = [submit(cluster, job("a")), submit(cluster, job("b"))]
    cluster.settle()
    explain(cluster, never=True)
    assert all(isinstance(cluster.replies.pop(ask), Unprocessable) for ask in asks)


def test_a_job_whose_parent_goes_while_it_is_held_is_refused_then(cluster: Cluster) -> None:
    cluster.put("parent", schedule=FAR)
    ask = submit(cluster, job(schedule=None, parents=["parent"]))
    cluster.settle()
    cluster.delete("parent")
    explain(cluster, never=False)
    assert isinstance(cluster.replies.pop(ask), CorralError)


def test_a_dag_with_a_step_that_no_agent_could_run_is_refused_by_the_steps_name(cluster: Cluster) -> None:
    steps = [{"name": "small", "command": "true"}, {"name": "huge", "command": "true", "mem": 9000}]
    spec = read_dag({"name": "d", "steps": steps})
    ask = submit(cluster, PutDag(spec=spec, check=True))
    cluster.settle()
    small = next(o for o in cluster.make_offers() if any(r.name == "mem" and r.milli < 9_000_000 for r in o.resources))
    cluster.send(events.Offers(offers=(small,)))
    assert ask not in cluster.replies
    explain(cluster, never=True)
    refused = cluster.replies.pop(ask)
    assert isinstance(refused, Unprocessable)
    assert "'huge'" in refused.message
    again = msgspec.structs.replace(spec, steps=spec.steps[:1])
    assert cluster.ask(PutDag(spec=again, check=True)) == (True, "")


# Plans.


def big_dag(*names: str) -> PlanDag:
    steps = [{"name": "small", "command": "true"}]
    steps += [{"name": name, "command": "true", "mem": 9000, "after": ["small"]} for name in names]
    return PlanDag(spec=read_dag({"name": "d", "steps": steps}), check=True)


def jobs_of(*commands: PutJob) -> CheckJobs:
    return CheckJobs(jobs=tuple((one.spec.name, ReadJob(spec=one.spec)) for one in commands), check=True)


def test_a_plan_of_a_dag_names_the_steps_that_no_agent_could_run_in_the_words_of_a_refusal(cluster: Cluster) -> None:
    before = dict(cluster.records)
    ask = submit(cluster, big_dag("huge", "vast"))
    cluster.settle()
    assert ask not in cluster.replies
    small = next(o for o in cluster.make_offers() if any(r.name == "mem" and r.milli < 9_000_000 for r in o.resources))
    cluster.send(events.Offers(offers=(small,)))
    explain(cluster, never=True)
    found = cluster.replies.pop(ask)
    text = "no agent could ever run it: wants mem 9000, the most free is 4096 on n1 (3 agents)"
    assert (found["never"], "notice" in found) == ({"huge": text, "vast": text}, False)
    assert found["waves"] == [["small"], ["huge", "vast"]]
    cluster.settle()
    assert (cluster.wants, cluster.records) == ({}, before)
    put = submit(cluster, PutDag(spec=big_dag("huge").spec, check=True))
    cluster.settle()
    explain(cluster, never=True)
    assert text in cluster.replies.pop(put).message


def test_a_plan_of_what_agents_could_run_says_nothing_of_it_and_the_next_is_told_at_once(cluster: Cluster) -> None:
    ask = submit(cluster, big_dag("huge"))
    cluster.settle()
    explain(cluster, never=False)
    assert cluster.replies.pop(ask)["never"] == {}
    assert "notice" not in cluster.ask(big_dag("huge"))


def test_a_plan_without_a_word_of_the_master_says_that_nobody_knows(cluster: Cluster) -> None:
    asks = [submit(cluster, big_dag("huge")), submit(cluster, jobs_of(job("a"), job("b", disabled=True)))]
    cluster.advance(cluster.config.check_s + 0.3)
    dag, jobs = (cluster.replies.pop(ask) for ask in asks)
    assert (dag["never"], dag["notice"]) == ({}, admission.UNKNOWN)
    assert [row["notes"] for row in jobs] == [[admission.UNKNOWN], []]
    assert cluster.job_names() == []
    cluster.disconnect()
    assert cluster.ask(big_dag("huge"))["notice"] == admission.UNKNOWN


def test_a_plan_of_jobs_tells_which_no_agent_could_run_each_by_itself(cluster: Cluster) -> None:
    wrong = job("wrong", schedule=None, parents=["nobody"])
    ask = submit(cluster, jobs_of(job("a"), job("b", command="again"), wrong))
    cluster.settle()
    explain(cluster, never=True)
    first, second, refused = cluster.replies.pop(ask)
    for row in (first, second):
        assert (row["verdict"], row["never"]) == ("new", True)
        assert row["notes"][-1].startswith("no agent could ever run it: wants mem 9000")
    assert refused["verdict"] == "refused"
    assert len(refused["notes"]) == 1


def test_a_constraint_that_is_none_is_told_of_its_job_alone(cluster: Cluster) -> None:
    ask = submit(cluster, jobs_of(job("odd", constraints=[["rack", "NEAR", "x"]]), job("a")))
    cluster.settle()
    explain(cluster, never=False)
    odd, well = cluster.replies.pop(ask)
    assert (odd["verdict"], well["verdict"]) == ("refused", "new")
    assert "has the operator 'NEAR'" in odd["notes"][0]


def test_a_plan_of_a_dag_that_is_wrong_in_itself_is_refused_before_anybody_is_asked(cluster: Cluster) -> None:
    steps = [{"name": "a", "command": "true", "mem": 9000, "after": ["a"]}]
    with pytest.raises(Invalid):
        cluster.ask(PlanDag(spec=read_dag({"name": "d", "steps": steps}), check=True))
    cluster.settle()
    assert cluster.wants == {}
