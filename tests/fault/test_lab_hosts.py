"""A lab's hosts are machines of their own: they reach each other, are cut off, die whole, and leave nothing behind."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from lab_hosts import ROOT, inside, leftovers, make_lab, reaches, running_lab

from corral.cli.main import cli
from corral.docker.image import engine_call
from corral.lab.lab import Lab, list_labs
from corral.lib.errors import Conflict, CorralError, Failed, Invalid, NotFound

CORRAL = (sys.executable, "-m", "corral.cli.main")


@pytest.fixture(scope="module")
def two(as_root: None) -> Iterator[Lab]:
    """Two hosts without Docker; whole again before each test."""
    yield from running_lab("t", 2, docker=False)


@pytest.fixture(autouse=True)
def well(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "two" in request.fixturenames:
        lab: Lab = request.getfixturevalue("two")
        lab.heal()
        lab.start()


def eventually(check: Callable[[], bool], timeout_s: float = 15.0) -> None:
    until = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def test_hosts_reach_each_other_and_the_machine_by_name(two: Lab) -> None:
    assert reaches(two, "h1", "h2")
    assert reaches(two, "h2", "here")
    said = inside(two, "h1", "sh", "-c", "hostname; echo $CORRAL_LAB_HOST; cat /proc/sys/kernel/random/boot_id")
    name, told, boot_id = said.stdout.split()
    assert (name, told) == ("h1", "h1")
    assert boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_cut_host_reaches_nobody_until_it_is_healed(two: Lab) -> None:
    two.cut("h1")
    assert not reaches(two, "h1", "h2")
    assert "NO-CARRIER" in inside(two, "h1", "ip", "link", "show", "eth0").stdout
    assert two.status()[0]["cut"] == ["unplugged"]
    two.heal("h1")
    eventually(lambda: reaches(two, "h1", "h2"))


def test_a_silent_cut_keeps_the_carrier(two: Lab) -> None:
    two.cut("h1", silent=True)
    assert not reaches(two, "h1", "h2")
    assert not reaches(two, "h1", "here")
    assert "NO-CARRIER" not in inside(two, "h1", "ip", "link", "show", "eth0").stdout


def test_two_hosts_cut_from_each_other_both_reach_the_machine(two: Lab) -> None:
    two.cut("h1", "h2")
    assert not reaches(two, "h2", "h1")
    assert reaches(two, "h1", "here")
    assert reaches(two, "h2", "here")


def test_a_cut_outlives_the_hosts_power(two: Lab) -> None:
    two.cut("h2", "here")
    two.kill(["h2"])
    two.start(["h2"])
    assert not reaches(two, "h2", "here")
    assert reaches(two, "h2", "h1")


def test_power_that_is_cut_ends_everything_and_another_boot_begins(two: Lab) -> None:
    before = inside(two, "h1", "cat", "/proc/sys/kernel/random/boot_id").stdout
    two.run("h1", "stubborn", ["sh", "-c", "trap '' TERM HUP INT; setsid sleep 987657 & sleep 987657"], {}, "/")
    eventually(lambda: sleepers(987657) == 2)
    inside(two, "h1", "sh", "-c", "echo kept > $CORRAL_LAB_DISK/file; echo gone > /run/file")
    two.kill(["h1"])
    assert sleepers(987657) == 0
    assert (two.status()[0]["runs"], two.status()[0]["pid"]) == (False, None)
    assert not reaches(two, "h2", "h1")
    with pytest.raises(Failed, match="h1 does not run; start it with: corral lab start h1"):
        two.command("h1", ["true"])
    two.start(["h1"])
    assert inside(two, "h1", "cat", "/proc/sys/kernel/random/boot_id").stdout not in ("", before)
    assert inside(two, "h1", "sh", "-c", "cat $CORRAL_LAB_DISK/file; ls /run/file").stdout == "kept\n"
    eventually(lambda: sleepers(987657) == 2)  # what was started as a daemon comes with the boot
    two.forget("h1", "stubborn")
    assert two.status()[0]["daemons"] == {}
    with pytest.raises(NotFound, match="h1 starts no stubborn at its boot"):
        two.forget("h1", "stubborn")


def sleepers(seconds: int) -> int:
    """How many on this machine sleep so long, which each test chooses for itself."""
    found, wanted = 0, f"sleep\0{seconds}\0".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes() == wanted
        except OSError:
            continue
    return found


def test_a_command_ends_as_its_program_does_and_takes_signals(two: Lab) -> None:
    assert inside(two, "h1", "sh", "-c", "exit 7").returncode == 7
    assert inside(two, "h1", "sh", "-c", "kill -9 $$").returncode == 137
    assert inside(two, "h1", "no-such-program").returncode == 127
    command = two.command("h1", ["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"])
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 5


def test_a_command_ends_with_the_one_who_runs_it(two: Lab) -> None:
    with subprocess.Popen(two.command("h1", ["sleep", "987659"])) as process:
        eventually(lambda: sleepers(987659) == 1)
        process.kill()
    eventually(lambda: sleepers(987659) == 0)


def test_a_daemon_is_stopped_goes_on_and_is_killed_by_name(two: Lab) -> None:
    log = two.run("h2", "talker", ["sh", "-c", "while :; do echo word; sleep 0.02; done"], {}, "/")
    eventually(lambda: log.stat().st_size > 0)
    with pytest.raises(Conflict, match="talker runs on h2 already"):
        two.run("h2", "talker", ["true"], {}, "/")
    two.signal("h2", "talker", signal.SIGSTOP)
    time.sleep(0.1)
    size = log.stat().st_size
    time.sleep(0.2)
    assert log.stat().st_size == size
    two.signal("h2", "talker", signal.SIGCONT)
    eventually(lambda: log.stat().st_size > size)
    two.signal("h2", "talker")
    assert two.status()[1]["daemons"] == {"talker": None}
    with pytest.raises(NotFound, match="talker does not run on h2"):
        two.signal("h2", "talker")
    two.forget("h2", "talker")
    with pytest.raises(Invalid, match="choose another name"):
        two.run("h2", "dockerd", ["true"], {}, "/")


def test_up_again_changes_nothing_and_adds_what_is_missing(two: Lab) -> None:
    before = two.status()
    two.up(2, docker=False)
    assert two.status() == before
    with pytest.raises(Conflict, match="made without Docker"):
        two.up(2)
    with pytest.raises(Conflict, match="take it down before"):
        two.up(2, docker=False, net="10.1.1.0/24")


def test_labs_stand_side_by_side(two: Lab) -> None:
    for other in running_lab("s", 1, docker=False):
        nets = {one["name"]: one["net"] for one in list_labs(ROOT)}
        assert nets[two.name] != nets[other.name]
        assert not reaches(two, "h1", other.status()[0]["ip"])
        assert reaches(other, "h1", "here")
    assert reaches(two, "h1", "h2")


def test_a_lab_whose_maker_was_killed_is_taken_down_even_with_its_records_lost(as_root: None) -> None:
    lab = make_lab("k")
    words = [*CORRAL, "lab", "--lab", lab.name, "--dir", str(ROOT), "up", "3", "--no-docker"]
    for wait_s in (0.4, 0.8):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as making:
            time.sleep(wait_s)
            making.kill()
    lab.up(1, docker=False)
    lab.run("h1", "sleeper", ["sleep", "987663"], {}, "/")
    for path in (lab.place.directory / "lab.json", *lab.place.directory.glob("h1/pids/*")):
        path.unlink()
    with pytest.raises(NotFound, match="there is no lab"):
        lab.status()
    lab.down()
    lab.down()
    assert leftovers(lab.name) == []
    assert sleepers(987663) == 0


def test_the_commands_say_what_is_and_what_is_wrong(two: Lab) -> None:
    def corral(*words: str) -> subprocess.CompletedProcess[str]:
        where = ["lab", "--lab", two.name, "--dir", str(ROOT)]
        return subprocess.run([*CORRAL, *where, *words], capture_output=True, text=True, timeout=60)

    assert [one["name"] for one in json.loads(corral("status", "-o", "json").stdout)] == ["h1", "h2"]
    assert two.name in corral("ls").stdout
    answer = corral("exec", "h1", "--", "sh", "-c", "corral --version; exit 3")
    assert (answer.stdout[:7], answer.returncode) == ("corral ", 3)
    assert corral("cut", "h1", "h2").returncode == 0
    assert corral("status").stdout.splitlines()[1].split()[4] == "h2"
    assert corral("heal").returncode == 0
    for words, code, part in (
        (("cut", "h9"), 3, "there is no host 'h9'"),
        (("kill", "h1", "nobody"), 3, "nobody does not run on h1"),
        (("kill", "h1", "--signal", "STOP"), 2, "name a daemon"),
        (("kill", "h1", "x", "--signal", "NONE"), 2, "--signal NONE is none"),
        (("up", "0", "--no-docker"), 2, "1 to 100 hosts"),
        (("exec", "h1,h2", "--", "true"), 2, "one at a time"),
    ):
        where = ["lab", "--lab", two.name, "--dir", str(ROOT)]
        error = CliRunner().invoke(cli, [*where, *words]).exception
        assert isinstance(error, CorralError), words
        assert (error.exit_code, part in error.message) == (code, True), error


def test_whoever_is_not_root_is_told_so() -> None:
    words = "import os; from corral.lab.lab import Lab; os.geteuid() or os.seteuid(65534); Lab('x').up(1)"
    answer = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60)
    assert "a lab makes namespaces, links and mounts, which needs root; run it with sudo" in answer.stderr


@pytest.mark.docker
def test_each_host_has_a_docker_of_its_own_that_dies_and_comes_back_with_it(private_engine: object) -> None:
    for lab in running_lab("d", 2, docker=True):
        urls = [one["docker"] for one in lab.status()]
        for url in urls:
            body = b'{"Image":"busybox:latest","Cmd":["sleep","987666"],"HostConfig":{"NetworkMode":"none"}}'
            engine_call(url, "POST", "/containers/create?name=one", body, {"Content-Type": "application/json"})
            engine_call(url, "POST", "/containers/one/start")
        assert sleepers(987666) == 2
        lab.signal("h1", "dockerd")
        assert sleepers(987666) == 2
        lab.kill(["h1"])
        assert sleepers(987666) == 1
        lab.start()
        found = json.loads(engine_call(urls[0], "GET", "/containers/one/json"))
        assert (found["State"]["Running"], found["State"]["ExitCode"]) == (False, 255)
        assert inside(lab, "h2", "docker", "-H", urls[1], "ps", "-q").stdout.strip()
