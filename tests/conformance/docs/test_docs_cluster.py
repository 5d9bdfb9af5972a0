"""The page about a real cluster, command for command, on hosts of a lab: three masters and etcd, two agents.

Only what a host of a lab is not differs: the package is there already, addresses are the lab's, and a stand-in for
systemd runs the units.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fault.lab_hosts import running_lab

from corral.lab.lab import Lab
from etcd_servers import require_etcd

PAGE = Path(__file__).parents[3] / "docs" / "operate" / "cluster.md"
SYSTEMCTL = Path(__file__).with_name("plain_systemctl.py")
BIN = Path(sys.executable).parent
MASTERS = {"m1": "h1", "m2": "h2", "m3": "h3"}
AGENTS = ("h4", "h5")
PREPARE = """
set -e
own=$CORRAL_LAB_DISK/own
mkdir -p $own $CORRAL_LAB_DISK/lib $CORRAL_LAB_DISK/opt/corral
mount -t tmpfs own $own
for name in etc usr/local; do
    mkdir -p $own/$name $own/$name.work
    mount -t overlay own -o lowerdir=/$name,upperdir=$own/$name,workdir=$own/$name.work /$name
done
mount --bind $CORRAL_LAB_DISK/lib /var/lib
mount --bind $CORRAL_LAB_DISK/opt /opt
ln -s BIN /opt/corral/bin
rm -f /usr/local/bin/corral
printf '#!/bin/sh\\nexec PYTHON SYSTEMCTL "$@"\\n' > /usr/local/bin/systemctl
chmod +x /usr/local/bin/systemctl
"""


class Block:
    """Shapes: `language` of a fenced block, empty for an indented one, which holds commands."""

    def __init__(self, heading: str, language: str, text: str) -> None:
        self.heading, self.language, self.text = heading, language, text

    @property
    def commands(self) -> list[str]:
        """Each with its continued lines, without the remark behind it."""
        joined = re.sub(r"\\\n *", " ", self.text)
        return [re.sub(r" +# .*", "", line) for line in joined.splitlines() if line]


def read_blocks(text: str) -> Iterator[Block]:
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        for found in re.finditer(r"^```(\w+)\n([\s\S]*?)^```|(?:^    .*\n)+", body, re.MULTILINE):
            yield Block(heading, found[1] or "", found[2] or re.sub(r"^    ", "", found[0], flags=re.MULTILINE))


class Hosts:
    """Machines with the page's addresses, and what its reader has typed on each so far.

    Shapes: `exported` by host are the lines that set variables of its shell.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.addresses = {one["name"]: one["ip"] for one in lab.status()}
        self.exported: dict[str, list[str]] = {}

    def prepare(self, host: str) -> None:
        script = PREPARE.replace("BIN", str(BIN)).replace("PYTHON", sys.executable)
        self.type(host, script.replace("SYSTEMCTL", str(SYSTEMCTL)))

    def translate(self, text: str) -> str:
        """The page's addresses as those of the lab."""

        def place(found: re.Match[str]) -> str:
            number = int(found[1])
            return self.addresses[f"h{number}" if number < 10 else f"h{number - 7}"]

        return re.sub(r"10\.0\.0\.(\d+)", place, text)

    def run(
        self, host: str, command: str, given: str = "", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        lines = "\n".join([*self.exported.get(host, []), self.translate(command)])
        # Compiling takes minutes, and decides the same.
        head = "unset $(env | grep -o '^CORRAL_[A-Z_]*' | grep -v LAB) DOCKER_HOST; cd /var/lib\n"
        head += "export CORRAL_KERNEL_COMPILED=no PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        return subprocess.run(
            self.lab.command(host, ["sh", "-c", head + lines]),
            input=given, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip

    def type(self, host: str, command: str, given: str = "") -> str:
        """What it printed; it has to succeed."""
        if command.startswith("export "):
            self.exported.setdefault(host, []).append(self.translate(command))
        ended = self.run(host, command, given)
        assert ended.returncode == 0, f"on {host}: {command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def until(self, host: str, command: str, look: Any, timeout_s: float = 60.0) -> Any:
        end = time.monotonic() + timeout_s
        while True:
            ended = self.run(host, command)
            if ended.returncode == 0 and (found := look(ended.stdout)):
                return found
            assert time.monotonic() < end, f"on {host}: {command}\n{ended.stdout}\n{ended.stderr}\n{self.tell()}"
            time.sleep(0.2)

    def tell(self) -> str:
        """The ends of all logs."""
        disks = [Path(one["disk"]) for one in self.lab.status()]
        logs = [log for disk in disks for log in sorted(disk.glob("lib/*.log"))]
        return "\n".join(f"{log}:\n{log.read_text()[-3000:]}" for log in logs)


class Reader:
    """Who follows the page: one method for each of its sections, given the blocks of it in their order."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.operator = ""  # the host where the operator's token is

    def install(self, commands: Block, daemon_json: Block) -> None:
        venv, install, link, doctor = commands.commands
        assert venv.startswith("python3 -m venv /opt/corral")
        assert install.startswith("/opt/corral/bin/pip install")
        for host in (*MASTERS.values(), *AGENTS):
            self.hosts.type(host, link)
            self._doctor(host, doctor)
        assert json.loads(daemon_json.text)["live-restore"] is True

    def etcd(self, member: Block, passphrase: Block) -> None:
        (command,) = member.commands
        assert shlex.split(command)[0] == "etcd"
        for name, host in MASTERS.items():
            own = command.replace("--name m1 ", f"--name {name} ")
            head, initial, cluster = own.partition("--initial-cluster")
            own = head.replace("10.0.0.1", f"10.0.0.{name[1]}") + initial + cluster
            argv = ["sh", "-c", f"exec {self.hosts.translate(own)} > /var/lib/etcd.log 2>&1"]
            self.hosts.lab.run(host, "etcd", argv, {"PATH": "/usr/bin:/bin"}, "/")
            for line in passphrase.commands:
                self.hosts.type(host, line, "four words are enough")

    def masters(self, config: Block, start: Block, operator: Block, others: Block) -> None:
        for name, host in MASTERS.items():
            own = config.text.replace('listen = "10.0.0.1:', f'listen = "10.0.0.{name[1]}:')
            self.hosts.type(host, "cat > /etc/corral/master.toml", self.hosts.translate(own))
            for line in start.commands:
                self.hosts.type(host, line)
        self.operator = self._find_operator()
        for line in operator.commands:
            if line.startswith("export "):
                self.hosts.type(self.operator, line)
            else:
                self.hosts.until(self.operator, line, lambda said: "0 nodes" in said or said)
        alice, authority = others.commands
        assert self.hosts.type(self.operator, alice).startswith("corral_")
        self.hosts.type(self.operator, authority)
        assert "BEGIN CERTIFICATE" in self.hosts.type(self.operator, "cat ca.pem")

    def _find_operator(self) -> str:
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            for host in MASTERS.values():
                if self.hosts.run(host, "test -s /var/lib/corral/master/trust/operator.token").returncode == 0:
                    return host
            time.sleep(0.2)
        raise AssertionError(f"no master has written the operator's token\n{self.hosts.tell()}")

    def agents(self, token: Block, join: Block, look: Block) -> None:
        for host in AGENTS:
            (create,) = token.commands
            secret = self.hosts.type(self.operator, create).strip()
            for line in join.commands:
                self.hosts.type(host, line.replace("TOKEN", secret))
        nodes, joined, run = look.commands
        self.hosts.until(self.operator, f"{nodes} -o json", self._all_reachable)
        assert all(host in self.hosts.type(self.operator, joined) for host in AGENTS)
        assert "1/1 running" in self.hosts.run(self.operator, run).stderr

    @staticmethod
    def _all_reachable(said: str) -> bool:
        return [node["state"] for node in json.loads(said)] == ["reachable"] * len(AGENTS)

    def holds(self, who: Block, kill: Block, look: Block) -> None:
        before = self._hello()
        (ask,) = who.commands
        (command,) = kill.commands
        leader = self._leader(ask)
        self.hosts.type(self._host_of(leader), command)
        self._leader(ask, after=leader["id"])
        self.hosts.until(self.operator, "corral nodes -o json", self._all_reachable)
        status, events = look.commands
        assert "1/1" in self.hosts.type(self.operator, status)
        assert "master started  epoch=2" in self.hosts.type(self.operator, events)
        assert [self._hello()[key] for key in ("id", "startedAt")] == [before[key] for key in ("id", "startedAt")]

    def _leader(self, ask: str, after: str = "") -> dict[str, Any]:
        """Any master says it, whoever leads. Shapes: `after` is the id of one that was killed; its next life is new."""

        def read(said: str) -> list[dict[str, Any]]:
            return [m for m in json.loads(said)["masters"] if m["leads"] and m["id"] != after]

        (found,) = self.hosts.until(self.operator, ask, read)
        leader: dict[str, Any] = found
        return leader

    def _host_of(self, master: dict[str, Any]) -> str:
        (host,) = [h for h, address in self.hosts.addresses.items() if f"//{address}:" in master["url"]]
        return host

    def _hello(self) -> dict[str, Any]:
        """The one instance of the page's app."""
        (task,) = json.loads(self.hosts.type(self.operator, "corral status hello -o json"))["tasks"]
        found: dict[str, Any] = task
        return found

    def doctor(self, looks: Block) -> None:
        node, master, as_json = looks.commands
        self._doctor(AGENTS[0], node)
        self._doctor("h1", master)
        told = json.loads(self.hosts.run(AGENTS[0], as_json).stdout)
        listed = re.findall(r"^\| ([a-z].*?) \| (?:agents|both) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        known = set(", ".join(listed).split(", "))
        # Behind the word stands what was looked at: a port, a directory, a master.
        assert not [one for one in told["findings"] if not {one["name"], one["name"].split()[0]} & known]
        assert {one["state"] for one in told["findings"]} <= {"ok", "warn", "fail"}

    def _doctor(self, host: str, command: str) -> None:
        ended = self.hosts.run(host, command)
        assert (ended.returncode in (0, 1), "Traceback" in ended.stderr) == (True, False), ended
        assert "clock" in ended.stdout

    def out(self, commands: Block) -> None:
        drain, revoke = commands.commands
        node = self._hello()["host"]
        name = next(host for host in AGENTS if node in (host, self.hosts.addresses[host]))
        self.hosts.type(self.operator, drain.replace("NODE", name))
        self.hosts.type(self.operator, revoke.replace("NODE", name))
        self.hosts.until(self.operator, "corral status hello", lambda said: "1/1" in said)
        assert self._hello()["host"] != node


SECTIONS = {
    "1. Install": Reader.install,
    "2. etcd": Reader.etcd,
    "3. Masters": Reader.masters,
    "4. Agents": Reader.agents,
    "5. See that it holds": Reader.holds,
    "Ask the doctor": Reader.doctor,
    "One at a time": Reader.out,
}


@pytest.fixture
def hosts(as_root: None) -> Iterator[Hosts]:
    require_etcd()
    for lab in running_lab("d", len(MASTERS) + len(AGENTS), docker=False):
        found = Hosts(lab)
        for host in found.addresses:
            found.prepare(host)
        yield found


@pytest.mark.timeout(300)
def test_the_cluster_of_the_page_comes_up_and_holds_as_it_says(hosts: Hosts) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks: dict[str, list[Block]] = {}
    for block in read_blocks(text):
        blocks.setdefault(block.heading, []).append(block)
    assert list(blocks) == list(SECTIONS)
    reader: Any = Reader(hosts)
    for heading, section in SECTIONS.items():
        follow: Any = section
        follow(reader, *blocks[heading])
