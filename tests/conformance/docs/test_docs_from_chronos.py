"""The page on moving from Chronos is gone through from top to bottom, with a pretended Chronos and a real cluster."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import chronos
import pytest
from corral_daemons import CORRAL, Answer, Site, ask, clean_environment, run_corral, wait_until
from pretended_chronos import list_new, list_old, serve_chronos

PAGE = (Path(__file__).parents[3] / "docs/frameworks/from-chronos.md").read_text(encoding="utf-8")
CHRONOS = "chronos.example:4400"
HERE = "127.0.0.1:4680"


def chapter(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def steps_of(title: str) -> list[tuple[str, str]]:
    """The commands and programs of a chapter, in their order."""
    found = re.findall(r"^ *```(python)\n((?:.*\n)*?) *```|^ {4,}((?:corral|curl) .*)$", chapter(title), re.MULTILINE)
    return [("python", re.sub(r"^   ", "", code, flags=re.MULTILINE) if code.startswith("   ") else code) if kind
            else ("shell", line) for kind, code, line in found]  # fmt: skip


@pytest.mark.parametrize("version", ["2.4.0", "3.0.2"])
def test_the_page_leads_there_and_back(daemons: Site, tmp_path: Path, version: str) -> None:
    url = daemons.dev().url
    write = list_old if version[0] == "2" else list_new
    fetched = {} if version[0] == "2" else {"fetch": [{"uri": "file:///etc/hostname", "executable": False,
                                                       "cache": False, "extract": False}]}  # fmt: skip
    jobs = [
        write("load", parents=["extract"], successCount=7),
        write("extract", successCount=9, **fetched),
        write("other"),
    ]
    told: dict[str, Answer] = {}

    with serve_chronos(version, jobs) as there:

        def go(kind: str, text: str) -> Answer:
            text = text.replace(CHRONOS, urlsplit(there.url).netloc).replace(HERE, urlsplit(url).netloc)
            if version[0] == "2":
                text = text.replace("/v1/scheduler", "/scheduler")
                text = re.sub(r'(there = .*")\)', r"\1, scheduler_api_version=None)", text)
            command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-c", text]
            path = f"{Path(CORRAL[0]).parent}:/usr/bin:/bin"
            environment = clean_environment(CORRAL_ADDR=url, PATH=path)
            ended = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
            )  # fmt: skip
            return Answer(ended.returncode, ended.stdout, ended.stderr)

        def there_now() -> dict[str, tuple[bool, int]]:
            return {job["name"]: (job["disabled"], job["successCount"]) for job in there.jobs}

        for kind, text in [*steps_of("Look first"), *steps_of("Move without running anything twice")]:
            told[text] = go(kind, text)
            assert told[text].code == 0, f"{text}: {told[text].err}"
        assert there_now() == {"extract": (True, 9), "load": (True, 7), "other": (False, 0)}
        wait_until(lambda: run_corral(url, "job", "show", "load", "-o", "json").json["successCount"] == 8, "the child")
        here = {one["name"]: one for one in ask(url, "GET", "/scheduler/jobs")[1]}
        assert {name: one["disabled"] for name, one in here.items()} == {"extract": False, "load": False, "other": True}

        for kind, text in steps_of("Roll back"):
            told[text] = go(kind, text)
            assert told[text].code == 0, f"{text}: {told[text].err}"
        assert there_now() == {"extract": (False, 10), "load": (False, 8), "other": (False, 0)}
        assert all(one["disabled"] for one in ask(url, "GET", "/scheduler/jobs")[1])
    assert sum(text.startswith("corral import chronos") for text in told) == 4
    assert "3 of 3 can be taken over" in next(iter(told.values())).err


def test_the_clients_connect_as_the_page_shows(daemons: Site) -> None:
    place = urlsplit(daemons.dev().url).netloc
    calls = re.findall(r"`(chronos\.connect\([^`]*\))`", chapter("Clients"))
    assert len(calls) == 4
    for call in calls[:2]:
        client = eval(call.replace("MASTER:4680", place), {"chronos": chronos})
        assert client.list() == []
        client.add({"name": "a b", "command": "true", "schedule": "R0//PT1H", "epsilon": "PT5M", "owner": "",
                    "disabled": False, "async": False, "cpus": 0.1, "mem": 16, "disk": 1})  # fmt: skip
        assert [(job["name"], job["epsilon"], job["async"]) for job in client.list()] == [("a b", "PT5M", False)]
        client.delete("a b")


def test_what_the_page_says_is_refused_is_refused(daemons: Site) -> None:
    url = daemons.dev().url
    bad = [
        {"executor": "/x"},
        {"container": {"type": "MESOS", "image": "busybox"}},
        {"container": {"type": "DOCKER", "image": "busybox", "volumes": [
            {"containerPath": "/x", "external": {"name": "a", "provider": "b", "options": []}}]}},
        {"scheduleTimeZone": "Nowhere/Land"},
        {"constraints": [["rack", "NEAR", "x"]]},
        {"constraints": [["rack", "LIKE", "(a+)+b"]]},
        {"parents": ["gone"], "schedule": None},
        {"command": ""},
        {"uris": ["http://a/x"], "fetch": [{"uri": "http://b/x"}]},
        {"schedule": "R/2040-01-01T00:00:00Z/PT0S"},
        {"name": "x" * 191},
        {"name": "a/b"},
    ]  # fmt: skip
    jobs = [
        {"name": f"j{n}", "command": "true", "schedule": "R/2040-01-01T00:00:00Z/P1D", **one}
        for n, one in enumerate(bad)
    ]
    rows = ask(url, "POST", "/scheduler/jobs/plan", jobs)[1]["jobs"]
    assert [(row["name"], row["verdict"]) for row in rows] == [(job["name"], "refused") for job in jobs]
