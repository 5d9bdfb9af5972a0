"""The PyPI client `chronos-python` 1.2.1 against the real server, unchanged: every call that it has, in both modes."""

from typing import Any

import chronos
import pytest
from chronos_site import CronSite
from corral_daemons import wait_until

FAR = "R/2040-01-01T00:00:00Z/P1D"
PAST = "R/2014-01-01T00:00:00Z/PT24H"


def job(name: str, **more: Any) -> dict[str, Any]:
    # Once the client was used in its old mode, it asks for `async` in the new one too.
    body = {"name": name, "command": "true", "owner": "", "disabled": False, "async": False}
    return {**body, "cpus": 0.1, "mem": 16, "disk": 1, **more}


def test_a_job_lives_from_add_to_delete(site: CronSite) -> None:
    assert site.client.add(job("life", schedule=PAST)) is None
    assert site.wait_count("life", "successCount", 1)["lastSuccess"].endswith("Z")
    (found,) = [j for j in site.client.list() if j["name"] == "life"]
    assert found["command"] == "true"
    assert site.client.delete("life") is None
    assert "life" not in [j["name"] for j in site.client.list()]


def test_the_old_mode_adds_and_updates_with_its_own_paths_and_methods(site: CronSite) -> None:
    body = {**job("old", schedule=FAR), "epsilon": "PT30M"}
    site.old_client.add(body)
    site.old_client.update({**body, "command": "false"})
    (found,) = [j for j in site.old_client.list() if j["name"] == "old"]
    assert (found["command"], found["epsilon"], found["async"]) == ("false", "PT30M", False)
    site.old_client.delete("old")


def test_an_update_keeps_counters_and_schedule(site: CronSite) -> None:
    site.client.add(job("kept", schedule="R5/2014-01-01T00:00:00Z/PT24H"))
    before = site.wait_count("kept", "successCount", 1)
    site.client.update(job("kept", schedule="R5/2014-01-01T00:00:00Z/PT24H", command="echo 2"))
    after = site.job("kept")
    assert after["command"] == "echo 2"
    assert (after["schedule"], after["successCount"]) == (before["schedule"], before["successCount"])
    assert after["schedule"].startswith("R4/")
    site.client.delete("kept")


def test_what_was_fetched_can_be_sent_back(site: CronSite) -> None:
    site.client.add(job("echo", schedule=FAR, environmentVariables=[{"name": "A", "value": "b"}], arguments=["x"]))
    before = site.job("echo")
    site.client.update(before)
    assert site.job("echo") == before
    site.client.delete("echo")


def test_jobs_are_searched_by_name_and_command(site: CronSite) -> None:
    site.client.add(job("find-one", schedule=FAR, command="sleep 1111"))
    site.client.add(job("find-two", schedule=FAR, command="sleep 2222"))
    assert {j["name"] for j in site.client.search(name="FIND")} == {"find-one", "find-two"}
    assert [j["name"] for j in site.client.search(command="2222")] == ["find-two"]
    assert site.client.search(name="find", command="3333") == []
    for name in ("find-one", "find-two"):
        site.client.delete(name)


def test_a_job_with_blanks_in_its_name_is_run_and_killed(site: CronSite) -> None:
    site.client.add(job("night shift", schedule=FAR, command="sleep 1000"))
    site.client.run("night shift")
    wait_until(lambda: site.state("night shift") == "1 running", "the run")
    site.client.delete_tasks("night shift")
    wait_until(lambda: site.state("night shift") == "idle", "its end")
    shown = site.client.job_stat("night shift")
    assert shown["histogram"]["count"] == 0
    assert shown["taskStatHistory"][0]["status"] == "Fail"
    site.client.delete("night shift")


def test_dependent_jobs_run_after_their_parents(site: CronSite) -> None:
    site.client.add(job("p1", schedule=FAR))
    site.client.add(job("p2", schedule=FAR))
    site.client.add(job("child", parents=["p1", "p2"]))
    site.client.run("p1")
    site.wait_count("p1", "successCount", 1)
    assert site.job("child")["successCount"] == 0
    site.client.run("p2")
    site.wait_count("child", "successCount", 1)
    assert "link,p1,child" in site.client.scheduler_graph()
    for name in ("child", "p1", "p2"):
        site.client.delete(name)


def test_statistics_and_metrics_are_there(site: CronSite) -> None:
    site.client.add(job("stat", schedule=PAST))
    site.wait_count("stat", "successCount", 1)
    for ask in (
        site.client.scheduler_stat_99th, site.client.scheduler_stat_98th, site.client.scheduler_stat_95th,
        site.client.scheduler_stat_75th, site.client.scheduler_stat_median, site.client.scheduler_stat_mean,
    ):  # fmt: skip
        (row,) = [row for row in ask() if row["jobNameLabel"] == "stat"]
        assert row["time"] > 0
    assert site.client.job_stat("stat")["histogram"]["count"] == 1
    assert site.client.metrics()
    site.client.delete("stat")


def test_what_is_refused_is_an_error_of_the_client(site: CronSite) -> None:
    for wrong in (
        lambda: site.client.add(job("bad", schedule="tomorrow")),
        lambda: site.client.add(job("bad", parents=["nobody"])),
        lambda: site.client.add(job("no/slash", schedule=FAR)),
        lambda: site.client.delete("nobody"),
        lambda: site.client.run("nobody"),
        lambda: site.client.delete_tasks("nobody"),
    ):
        with pytest.raises(chronos.ChronosAPIError):
            wrong()
    with pytest.raises(chronos.MissingFieldError):
        site.client.add({"name": "bad"})
