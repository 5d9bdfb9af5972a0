"""Every refusal of Chronos' API with its status and its sentence, and what its views say, under both prefixes."""

from typing import Any

import pytest
from chronos_site import CronSite
from corral_daemons import wait_until

PREFIXES = ("/scheduler", "/v1/scheduler")
FAR = "R/2040-01-01T00:00:00Z/P1D"


@pytest.fixture(params=PREFIXES)
def prefix(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def job(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": "true", "cpus": 0.1, "mem": 16, "disk": 1, "schedule": FAR, **more}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"schedule": ""}, "nor a cron line of five fields"),
    ({"schedule": "r/2040-01-01T00:00:00Z/P1D"}, "is neither R[n]/start/period"),
    ({"schedule": "R-1/2040-01-01T00:00:00Z/P1D"}, "is neither R[n]/start/period"),
    ({"schedule": "R/2040-01-01T00:00:00Z/1D"}, "is neither R[n]/start/period"),
    ({"schedule": "R/2040-01-01T00:00:00Z/P-1D"}, "is no ISO 8601 duration"),
    ({"schedule": "R/2040-01-01T00:00:00Z/P0D"}, "repeats without a period"),
    ({"schedule": "R5/2040-01-01/P"}, "repeats without a period"),
    ({"schedule": "R/2040-13-01T00:00:00Z/P1D"}, "which is no ISO 8601 date and time"),
    ({"schedule": "R/2040-01-01T25:00:00Z/P1D"}, "which is no ISO 8601 date and time"),
    ({"schedule": "R99999999999999999999/2040-01-01T00:00:00Z/P1D"}, "more often than 64 bits can count"),
    ({"schedule": "R/1960-01-01T00:00:00Z/P1D"}, "starts in the year 1960"),
    ({"schedule": f"R{'9' * 5000}/2040-01-01T00:00:00Z/P1D"}, "longer than 1000 characters"),
    ({"schedule": f"{'9' * 5000} * * * *"}, "longer than 1000 characters"),
    ({"epsilon": f"P{'9' * 5000}D"}, "longer than 1000 characters"),
    ({"lastSuccess": "0001-01-01T00:00:00+14:00"}, "lastSuccess: timestamp"),
    ({"schedule": "61 * * * *"}, "Bad minute; its fields are minute 0-59"),
    ({"schedule": "* * * *"}, "nor a cron line of five fields"),
    ({"schedule": []}, "schedule must be a string"),
    ({"scheduleTimeZone": "Mars/Olympus"}, "is not in this machine's tz database"),
    ({"epsilon": "soon"}, "is no ISO 8601 duration"),
    ({"name": ""}, "name must be given"),
    ({"name": "a/b"}, "must be made of letters"),
    ({"cpus": -1}, "cpus is -1"),
    ({"mem": "NaN"}, "mem must be a number"),
    ({"retries": 1.5}, "retries must be a whole number"),
    ({"disabled": "maybe"}, "disabled must be true or false"),
    ({"constraints": [["a", "NEAR", "b"]]}, "use EQUALS, LIKE or UNLIKE"),
    ({"constraints": [["a", "LIKE", "("]]}, "no valid regular expression"),
    ({"container": {"type": "DOCKER"}}, "container.image must be given"),
    ({"container": {"image": "x", "network": "MOON"}}, "it must be one of HOST"),
    ({"parents": ["one"]}, "both schedule and parents"),
    ({"uris": ["a"], "fetch": [{"uri": "b"}]}, "both uris and fetch"),
    ({"environmentVariables": {"a": "b"}}, "environmentVariables must be a list"),
    ({"maxCompletionTime": -1}, "maxCompletionTime is -1"),
    ({"executor": "mine"}, "runs no custom executors"),
    ({"arguments": "x"}, "arguments must be a list"),
    ({"webhook": "nowhere"}, "must be an http or https URL"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED)
def test_what_cannot_be_meant_is_400_with_a_sentence_and_leaves_no_job(
    site: CronSite, prefix: str, fields: dict[str, Any], said: str
) -> None:
    code, body = site.ask("POST", f"{prefix}/iso8601", {**job("wrong"), **fields})
    assert (code, body["status"]) == (400, "Bad Request")
    assert said in body["message"]
    assert "\n" not in body["message"]
    assert site.ask("GET", f"{prefix}/job/wrong")[0] == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[]", "the body must be a JSON object, got a list"),
        (b"null", "the body must be a JSON object, got null"),
    ],
)
@pytest.mark.parametrize("path", ["iso8601", "dependency"])
def test_a_body_that_is_no_object_is_400(site: CronSite, prefix: str, path: str, body: bytes, said: str) -> None:
    code, answer = site.ask("POST", f"{prefix}/{path}", body)
    assert (code, answer["status"]) == (400, "Bad Request")
    assert said in answer["message"]


def test_dependencies_that_cannot_be_are_400_and_name_the_path(site: CronSite, prefix: str) -> None:
    def refuse(path: str, **fields: Any) -> str:
        body = {k: v for k, v in {**job("kid", schedule=None), **fields}.items() if v is not None}
        code, answer = site.ask("POST", f"{prefix}/{path}", body)
        assert (code, answer["status"]) == (400, "Bad Request"), answer
        message: str = answer["message"]
        return message

    site.ask("POST", f"{prefix}/iso8601", job("root"))
    assert "names the parents nobody, which do not exist" in refuse("dependency", parents=["nobody"])
    assert "kid -> kid" in refuse("dependency", parents=["kid"])
    assert "empty list of parents" in refuse("dependency", parents=[])
    assert "parents must be a list" in refuse("dependency", parents="root")
    assert "has no parents" in refuse("dependency", schedule=FAR)
    assert "send it to the endpoint dependency" in refuse("iso8601", parents=["root"])
    body = {**job("kid"), "parents": ["root", "root"]}
    del body["schedule"]
    assert site.ask("POST", f"{prefix}/dependency", body)[0] == 204
    assert site.ask("GET", f"{prefix}/job/kid")[1]["parents"] == ["root"]
    assert "root -> kid -> root" in refuse("dependency", name="root", parents=["kid"])
    for name in ("kid", "root"):
        site.ask("DELETE", f"{prefix}/job/{name}")


def test_a_job_that_no_agent_could_ever_run_is_422_and_can_be_insisted_on(site: CronSite, prefix: str) -> None:
    code, body = site.ask("POST", f"{prefix}/iso8601", job("huge", mem=99_000_000))
    assert (code, body["status"]) == (422, "Unprocessable Entity")
    assert "wants mem 99000000, the most free is" in body["message"]
    assert "?check=false" in body["message"]
    assert site.ask("POST", f"{prefix}/iso8601?check=false", job("huge", mem=99_000_000))[0] == 204
    assert site.ask("PUT", f"{prefix}/job/huge")[0] == 204
    path = f"{prefix}/job/huge/history"
    wait_until(lambda: "wants mem 99000000" in site.ask("GET", path)[1]["why"], "the reason")
    (row,) = [row for row in site.ask("GET", f"{prefix}/jobs/summary")[1]["jobs"] if row["name"] == "huge"]
    assert row["state"] == "queued"
    assert row["why"].startswith("no agent could ever run it: wants mem 99000000")
    site.ask("DELETE", f"{prefix}/job/huge")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/job/one", "DELETE, GET, PUT"), ("PATCH", "/job/one", "DELETE, GET, PUT"), ("DELETE", "/jobs", "GET"),
        ("GET", "/iso8601", "POST, PUT"), ("POST", "/task/kill/one", "DELETE, PUT"), ("PUT", "/graph/dot", "GET"),
    ],
)  # fmt: skip
def test_a_wrong_method_is_405_in_chronos_form(
    site: CronSite, prefix: str, method: str, path: str, allowed: str
) -> None:
    code, body = site.ask(method, prefix + path, {} if method != "GET" else None)
    assert code == 405
    assert body == {"status": "Method Not Allowed", "message": f"{prefix}{path} takes {allowed}, not {method}"}


def test_an_unknown_path_is_404_in_chronos_form(site: CronSite, prefix: str) -> None:
    code, body = site.ask("GET", f"{prefix}/nowhere")
    assert (code, body) == (404, {"status": "Not Found", "message": f"there is no {prefix}/nowhere here"})


def test_jobs_are_searched_by_parts_in_any_case_ten_at_a_time(site: CronSite, prefix: str) -> None:
    for n in range(12):
        site.ask("POST", f"{prefix}/iso8601", job(f"Many-{n:02}", command="echo Alpha" if n % 2 else "echo beta"))

    def names(query: str) -> list[str]:
        code, found = site.ask("GET", f"{prefix}/jobs/search?{query}")
        assert code == 200
        return [one["name"] for one in found]

    assert names("name=mANY") == [f"Many-{n:02}" for n in range(10)]
    assert names("name=many&offset=10") == ["Many-10", "Many-11"]
    assert names("name=many&limit=0") == []
    assert names("name=many&command=ALPHA&limit=50") == [f"Many-{n:02}" for n in range(1, 12, 2)]
    assert names("any=beta&limit=2&offset=1") == ["Many-02", "Many-04"]
    assert names("name=nothing") == []
    assert site.ask("GET", f"{prefix}/jobs/search?limit=x")[0] == 400
    for n in range(12):
        site.ask("DELETE", f"{prefix}/job/Many-{n:02}")


def test_the_graph_is_there_as_csv_and_as_dot(site: CronSite, prefix: str) -> None:
    site.ask("POST", f"{prefix}/iso8601", job("g-root"))
    body = {**job("g-kid"), "parents": ["g-root"]}
    del body["schedule"]
    site.ask("POST", f"{prefix}/dependency", body)
    code, csv = site.ask("GET", f"{prefix}/graph/csv")
    assert code == 200
    assert {"node,g-root,fresh,idle", "node,g-kid,fresh,idle", "link,g-root,g-kid"} <= set(csv.splitlines())
    code, dot = site.ask("GET", f"{prefix}/graph/dot")
    assert code == 200
    lines = [line.strip() for line in dot.splitlines()]
    assert (lines[0], lines[-1]) == ("digraph G {", "}")
    numbers = {line.split('"')[1]: line.split()[0] for line in lines if "label=" in line}
    assert f"{numbers['g-root']} -> {numbers['g-kid']};" in lines
    for name in ("g-kid", "g-root"):
        site.ask("DELETE", f"{prefix}/job/{name}")


def test_statistics_are_empty_for_an_unknown_kind_and_a_row_a_job_for_the_six(site: CronSite, prefix: str) -> None:
    site.ask("POST", f"{prefix}/iso8601", job("never-ran"))
    assert site.ask("GET", f"{prefix}/stats/fastest") == (200, [])
    for which in ("99thPercentile", "98thPercentile", "95thPercentile", "75thPercentile", "median", "mean"):
        code, rows = site.ask("GET", f"{prefix}/stats/{which}")
        assert code == 200
        assert {"jobNameLabel": "never-ran", "time": 0.0} in rows
        assert [row["time"] for row in rows] == sorted((row["time"] for row in rows), reverse=True)
    stat = site.ask("GET", f"{prefix}/job/stat/never-ran")[1]
    assert set(stat["histogram"].values()) == {0}
    assert stat["taskStatHistory"] == []
    site.ask("DELETE", f"{prefix}/job/never-ran")


def test_a_field_that_nobody_knows_is_named_and_cannot_break_the_answer(site: CronSite, prefix: str) -> None:
    code, _ = site.ask("POST", f"{prefix}/iso8601", job("odd", **{"new\nline": 1, "ümlaut": 2}))
    assert code == 204
    site.ask("DELETE", f"{prefix}/job/odd")


def test_the_first_page_leads_to_jobs_and_dags(site: CronSite) -> None:
    assert site.ask("GET", "/")[0] == 302
    code, page = site.ask("GET", "/ui/")
    assert code == 200
    for path in ("/scheduler/jobs", "/corral/v1/dags"):
        assert f'href="{path}"' in page
        assert site.ask("GET", path)[0] == 200
