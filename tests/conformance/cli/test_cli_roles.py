"""`corral role`: what is typed is what the master knows, and what cannot be is one line and an exit code."""

from collections.abc import Callable, Iterator

import pytest
import yaml
from corral_daemons import Answer, Daemon, ask

Run = Callable[..., Answer]


@pytest.fixture(autouse=True)
def clean(cluster: Daemon) -> Iterator[None]:
    """Every test finds roles of which nothing is set."""
    yield
    for role in ask(cluster.url, "GET", "/corral/v1/roles")[1]["roles"]:
        if role["set"]:
            assert ask(cluster.url, "DELETE", f"/corral/v1/roles/{role['name']}")[0] == 204


def test_a_role_is_set_piece_by_piece_and_shown_in_every_form(run: Run) -> None:
    first = run(
        "role", "set", "ads/etl", "--weight", "2", "--guarantee", "cpus=1,mem=128", "--limit", "cpus=2.5,gpus=0",
        "--max-tasks", "100", "--priority", "5", "--half-life", "1h", "--strategy", "binpack",
    )  # fmt: skip
    assert (first.code, first.out) == (0, "")
    assert first.err == (
        "role ads/etl: weight 2, guarantee cpus=1,mem=128, limit cpus=2.5,gpus=0, at most 100 tasks, priority 5, "
        "half-life 1hrs, strategy binpack\n"
    )
    found = run("role", "show", "ads/etl", "-o", "json").json
    assert (found["half_life_s"], found["limit"], found["max_tasks"]) == (3600.0, {"cpus": 2.5, "gpus": 0.0}, 100)
    assert "limit cpus=3,mem=299" in run("role", "set", "ads/etl", "--limit", "cpus:3;mem:299").err, (
        "as agents are told"
    )
    assert run("role", "set", "ads/etl", "--limit", "none", "--max-tasks", "none", "--half-life", "none").code == 0
    after = run("role", "show", "ads/etl", "-o", "json").json
    assert (after["half_life_s"], after["limit"], after["max_tasks"]) == (None, {}, None)
    assert (after["weight"], after["guarantee"], after["priority"]) == (2.0, {"cpus": 1.0, "mem": 128.0}, 5)
    lines = dict(line.split(None, 1) for line in run("role", "show", "ads/etl").out.splitlines()[1:])
    assert (lines["guarantee"].strip(), lines["set"].strip()) == ("cpus=1,mem=128", "yes")


def test_roles_are_listed_as_a_tree(run: Run) -> None:
    assert run("role", "set", "ads/etl/nightly", "--max-tasks", "7", "--half-life", "90s").code == 0
    table, wide, data, document = (
        run("role", "ls", *form) for form in ((), ("-o", "wide"), ("-o", "json"), ("-o", "yaml"))
    )  # fmt: skip
    assert [a.code for a in (table, wide, data, document)] == [0, 0, 0, 0]
    rows = [line.split() for line in table.out.splitlines()]
    assert rows[0] == ["ROLE", "WEIGHT", "SHARE", "FAIR", "GUARANTEE", "LIMIT", "USED", "TASKS", "WAITING"]
    assert [row[0] for row in rows[1:]] == ["*", "ads", "ads/etl", "ads/etl/nightly"]
    assert rows[4][7] == "0/7"
    everybody = rows[1]
    assert everybody[6] == "cpus=0.1,mem=32"
    assert (everybody[7], everybody[8]) == ("1", "1"), "the ticker runs and the huge one waits"
    assert "90secs" in wide.out
    assert "PRIORITY" in wide.out
    assert data.json == yaml.safe_load(document.out)
    assert [r["parent"] for r in data.json] == [None, None, "ads", "ads/etl"]


def test_a_role_is_forgotten_once(run: Run) -> None:
    run("role", "set", "ads", "--weight", "2")
    assert run("role", "rm", "ads").err == "role ads forgotten\n"
    again = run("role", "rm", "ads")
    assert (again.code, again.err) == (3, "corral: nothing is set of role ads; corral role ls lists the roles\n")
    assert run("role", "show", "ads").code == 3


def test_what_the_cluster_cannot_hold_needs_force(run: Run) -> None:
    refused = run("role", "set", "ads", "--guarantee", "cpus=1000")
    assert refused.code == 4
    assert "all guarantees together need 1000 cpus and the cluster has 4" in refused.err
    assert run("role", "show", "ads").code == 3
    assert run("role", "set", "ads", "--guarantee", "cpus=1000", "--force").code == 0
    assert "use 0.1 cpus, more than the new limit of 0" in run("role", "set", "*", "--limit", "cpus=0").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing to set; name for example --weight 2"),
        (("--weight", "0"), "role ads is to weigh 0"),
        (("--weight", "much"), "'much' is not a valid float"),
        (("--guarantee", "cpus"), "--guarantee 'cpus' is not NAME=AMOUNT"),
        (("--guarantee", "cpus=much"), "--guarantee 'cpus=much' is not NAME=AMOUNT"),
        (("--guarantee", "cpus=1,cpus=2"), "each name once"),
        (("--limit", "=1"), "--limit '=1' is not NAME=AMOUNT"),
        (("--limit", "cpus=-1"), "limit of role ads has -1 cpus"),
        (("--limit", "cpus=nan"), "not"),
        (("--limit", "cpus=1,"), "--limit '' is not NAME=AMOUNT"),
        (("--guarantee", "cpus=2", "--limit", "cpus=1"), "raise the limit or lower the guarantee"),
        (("--max-tasks", "few"), "--max-tasks 'few' is neither a whole number nor none"),
        (("--max-tasks", "-1"), "at most -1 tasks"),
        (("--priority", "1024"), "it must be 0 to 1023"),
        (("--half-life", "soon"), "duration 'soon'"),
        (("--half-life", "0"), "a half-life of 0 s"),
        (("--strategy", "best"), "names the strategy 'best'"),
    ],
)
def test_what_cannot_be_is_exit_code_2_and_changes_nothing(run: Run, words: tuple[str, ...], told: str) -> None:
    answer = run("role", "set", "ads", *words)
    assert (answer.code, told in answer.err) == (2, True), answer.err
    assert run("role", "show", "ads").code == 3


@pytest.mark.parametrize("name", ["-- -x", "a b", "a//", "..", "a/*"])
def test_a_name_that_no_role_can_have_is_refused(run: Run, name: str) -> None:
    words = name.split(" ", 1) if name.startswith("--") else [name]
    answer = run("role", "set", "--weight", "2", *words)
    assert answer.code == (0 if name == "a//" else 2), answer.err
