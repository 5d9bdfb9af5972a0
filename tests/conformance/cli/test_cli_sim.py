"""`corral sim` as a person calls it: what a daemon records, what the page needs, and what wrong files are told."""

import json
from pathlib import Path

import pytest
from corral_daemons import Site, run_corral, wait_running

SAMPLES = Path(__file__).parents[3] / "examples/sim"
PODS, NODES, TRACE = (str(SAMPLES / name) for name in ("pods.csv", "nodes.csv", "small.trace"))


def test_a_real_cluster_is_recorded_and_its_recording_and_journal_simulated(daemons: Site) -> None:
    trace = daemons.directory / "life.trace"
    dev = daemons.dev("--journal", "--record", str(trace))
    run_corral(dev.url, "run", "--process", "--name", "web", "-n", "3", "-p", "0", "--", "sleep", "1000")
    wait_running(dev.url, "web", 3)
    run_corral(dev.url, "run", "--process", "--name", "huge", "--mem", "1000000", "-d", "--", "true")
    run_corral(dev.url, "scale", "web", "1")
    wait_running(dev.url, "web", 1)
    run_corral(dev.url, "stop", "web")
    assert dev.stop() == 0
    journal = daemons.directory / "dev/journal/master.journal"
    answers = [run_corral("", "sim", str(path), "--policy", "spread", "-o", "json") for path in (trace, journal)]
    assert [answer.code for answer in answers] == [0, 0], answers
    recorded, replayed = (answer.json for answer in answers)
    for one in (recorded, replayed):
        one.pop("measured")
    assert recorded == replayed
    (run,) = recorded["runs"]
    assert (run["waits"]["placed"], run["counts"]["ended"], run["never_placed"]) == (3, 3, 1)


def test_policies_stand_side_by_side_and_equal_calls_say_equal_things(tmp_path: Path) -> None:
    words = [
        "sim",
        PODS,
        "--nodes",
        NODES,
        "--policy",
        "spread",
        "--policy",
        "binpack",
        "--role-by",
        "app",
        "--seed",
        "4",
    ]
    page = tmp_path / "out.html"
    table = run_corral("", *words, "--report", str(page))
    assert table.code == 0, table.err
    head, *lines = table.out.splitlines()
    assert head.split() == ["SPREAD", "BINPACK"]
    assert [line.split() for line in lines if line.startswith("placed ")] == [["placed", "300", "300"]]
    assert any(line.split()[:3] == ["binpack", "training", "67"] for line in lines)
    assert table.err == "", "a bar is for people at a terminal"
    assert page.read_text(encoding="utf-8").count("<svg") == 9
    found = [run_corral("", *words, "-o", "json").json for _ in range(2)]
    measured = [one.pop("measured") for one in found]
    assert json.dumps(found[0]) == json.dumps(found[1])
    assert measured[0]["runs"][0]["placements_per_s"] > 0
    hashes = [run["decision_hash"] for run in found[0]["runs"]]
    assert len(set(hashes)) == 2


def test_a_trace_needs_no_nodes_and_takes_others(tmp_path: Path) -> None:
    own = run_corral("", "sim", TRACE, "-o", "json").json
    other = run_corral("", "sim", TRACE, "--nodes", NODES, "-o", "json").json
    assert (own["agents"], other["agents"]) == (3, 12)
    assert own["runs"][0]["waits"]["most"] > 0.0
    # The constraint of one want names racks, which those machines lack.
    assert (other["runs"][0]["waits"]["most"], other["runs"][0]["counts"]["withdrawn"]) == (0.0, 1)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere.trace"], 3, "no trace file at nowhere.trace"),
        ([PODS], 2, "names no agents; add --nodes FILE"),
        ([PODS, "--nodes", "nowhere.csv"], 3, "no trace file at nowhere.csv"),
        ([PODS, "--nodes", PODS], 2, "pods.csv line 1 lacks the column gpu"),
        ([TRACE, "--policy", "best"], 2, "there is no policy 'best'; there are spread, binpack"),
        ([TRACE, "--inflate", "0.5"], 2, "inflated 0.5 times; give 1 to 1000"),
        ([TRACE, "--limit", "0"], 2, "--limit"),
        ([TRACE, "--headroom", "many"], 2, "--headroom 'many': "),
        ([TRACE, "--headroom", "ports:[1-9]"], 2, "'ports:[1-9]': has ports, which has no amount"),
        ([TRACE, "--evictions-per-minute", "-1"], 2, "--evictions-per-minute"),
        ([TRACE, "--report", "/proc/out.html"], 2, "--report /proc/out.html cannot be written"),
        ([TRACE, "--report", "/nowhere/out.html"], 2, "there is no directory /nowhere; make it first"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(words: list[str], code: int, said: str) -> None:
    answer = run_corral("", "sim", *words)
    assert (answer.code, said in answer.err) == (code, True), answer


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.trace"
    lines = Path(TRACE).read_text(encoding="utf-8").splitlines()
    broken.write_text("\n".join([*lines[:3], lines[3].replace('"cpus":4.0', '"cpus":"four"'), *lines[4:]]))
    answer = run_corral("", "sim", str(broken))
    assert answer.code == 2
    assert answer.err == (
        f"corral: {broken} line 4 gives cpus as 'four'; give a number of 0 or more, [31000-31010] or {{a, b}}\n"
    )


def test_a_recording_that_cannot_be_begun_keeps_the_daemon_from_starting(daemons: Site) -> None:
    answer = run_corral(
        "",
        "master",
        "--listen",
        "127.0.0.1:0",
        "--work-dir",
        str(daemons.directory / "m"),
        "--record",
        "/nowhere/x.trace",
    )
    assert answer.code == 2
    assert "--record /nowhere/x.trace cannot be begun: No such file or directory; name another file" in answer.err
