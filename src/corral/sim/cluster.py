"""A whole cluster in virtual time: the real cores of master, agents and frameworks, joined by the simulated network.

Only clocks, network, disks and containers are simulated. Whatever is asked of the cluster from outside goes through the
same commands as in production.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import msgspec

from corral.agent.core import AgentCore
from corral.agent.spec import AgentConfig
from corral.lib.errors import Unavailable
from corral.master.core import MasterCore
from corral.master.spec import MasterConfig
from corral.model.resources import Resources, ports, scalar
from corral.runtime.core import Core, Shell
from corral.sim.containers import Behave, Ledger, SimRuntime, run_for_ever
from corral.sim.network import Network, Weather
from corral.sim.reign import Reign, store_clock
from corral.sim.shells import AgentHands, FrameworkHands, MasterDoor
from corral.sim.world import Answer, Pace, Process, World
from corral.store.memory import MemoryStore

MASTER = MasterConfig(
    agent_timeout_s=15.0,
    ping_s=3.0,
    heartbeat_s=3.0,
    reregister_timeout_s=60.0,
    recovery_grace_s=30.0,
    session_timeout_s=6.0,
    want_offer_timeout_s=10.0,
)
"""The master's own settings, at a pace that keeps virtual hours short."""

AGENT = AgentConfig(hostname="")
"""What agents are but for their names and places."""

NODE: Resources = (scalar("cpus", 4.0), scalar("mem", 4096.0), ports((31000, 31999)))

FrameworkCores = Callable[[Random], Core]
"""From randomness to the session that runs a framework's core, made anew at each start of its process."""


class Cluster:
    """One master or several, `agents` agents and the named frameworks; nothing is up before `start`.

    Units: of several masters, one that takes no turn for `lease_ttl_s` is followed by another.
    """

    def __init__(
        self,
        seed: int,
        frameworks: Mapping[str, FrameworkCores],
        *,
        agents: int = 3,
        masters: int = 1,
        lease_ttl_s: float = 8.0,
        weather: Weather | None = None,
        pace: Pace | None = None,
        behave: Behave = run_for_ever,
        master: MasterConfig = MASTER,
        node: Resources = NODE,
        runtimes: Sequence[str] = ("process",),
        agent: AgentConfig = AGENT,
    ) -> None:
        self.world = World(seed, pace=pace)
        self.network = Network(self.world, weather)
        self.ledger = Ledger()
        names = [f"master{number}" for number in range(1, masters + 1)] if masters > 1 else ["master"]
        records = MemoryStore(clock=store_clock(self.world) if masters > 1 else self.world.clock)
        self.masters = [self._add(each, "master/", self._build_master(master), records) for each in names]
        self.reign = Reign(self.world, self.masters, records, lease_ttl_s) if masters > 1 else None
        self.runtimes: dict[str, dict[str, SimRuntime]] = {}
        self.agents: dict[str, Process] = {}
        self.frameworks: dict[str, Process] = {}
        for number in range(1, agents + 1):
            name = f"agent{number}"
            config = msgspec.structs.replace(
                agent, hostname=name, port=4680 + number, resources=node, runtimes=tuple(runtimes),
                work_dir=f"/sim/{name}",
            )  # fmt: skip
            self.runtimes[name] = {r: SimRuntime(self.world, name, self.ledger, behave) for r in runtimes}
            self.agents[name] = self._add(name, "agent/", self._build_agent(config))
        for name, make in frameworks.items():
            self.frameworks[name] = self._add(name, f"{name}/", self._build_framework(make))

    @property
    def master(self) -> Process:
        """The one that leads, or did last."""
        return self.masters[0] if self.reign is None else self.reign.leader

    @property
    def processes(self) -> list[Process]:
        """All that work when all is well: of several masters the one that leads."""
        return [self.master, *self.agents.values(), *self.frameworks.values()]

    def start(self) -> None:
        if self.reign is not None:
            self.reign.begin()
        for process in self.processes:
            process.start()

    def run(self, for_s: float, until: Callable[[], bool] | None = None) -> bool:
        return self.world.run(for_s, until)

    def ask(self, name: str, command: Any, *, for_s: float = 60.0) -> Any:
        """Put a command to a process, again whenever it is down, until it is answered.

        Errors: the refusal; `Unavailable` when there was no answer in time.
        """
        process, end = self.world.processes[name], self.world.now + for_s
        while True:
            answer: Answer = process.ask(command)
            self.run(end - self.world.now, partial(getattr, answer, "done"))
            if not isinstance(answer.error, Unavailable) or self.world.now >= end:
                return answer.get()
            self.run(0.1)

    def running(self) -> list[str]:
        """The ids of all tasks that run now, sorted."""
        return sorted(one.execution.task_id for one in self.ledger.running())

    def reset_node(self, name: str) -> None:
        """Cut the power of a node: its agent and all containers end at once."""
        for runtime in self.runtimes[name].values():
            runtime.lose_power()
        self.agents[name].crash("with its node")

    def disconnect_all(self, name: str) -> None:
        """Cut a process off from all others."""
        for other in self.processes:
            if other.name != name:
                self.network.cut(name, other.name)

    def _add(
        self,
        name: str,
        prefix: str,
        build: Callable[[Process], tuple[Core, Shell]],
        store: MemoryStore | None = None,
    ) -> Process:
        process = self.world.add(name, build, prefix=prefix, store=store)
        process.crash_hooks.append(lambda: self.network.drop(name))
        return process

    def _build_master(self, config: MasterConfig) -> Callable[[Process], tuple[Core, Shell]]:
        return lambda process: (MasterCore(config, Random(process.seed)), MasterDoor(process))

    def _build_agent(self, config: AgentConfig) -> Callable[[Process], tuple[Core, Shell]]:
        def build(process: Process) -> tuple[Core, Shell]:
            hands = AgentHands(process, self.network, lambda: self.master, self.runtimes[process.name])
            return AgentCore(config, Random(process.seed)), hands

        return build

    def _build_framework(self, make: FrameworkCores) -> Callable[[Process], tuple[Core, Shell]]:
        return lambda process: (make(Random(process.seed)), FrameworkHands(process, self.network, lambda: self.master))
