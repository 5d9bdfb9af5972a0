"""Slurm on this machine, as a peer: its controller and one node, each installed from the distribution where missing.

Tuned for many short jobs as its own guide for high throughput says: submissions are not tried one by one, the scheduler
may run every 50 ms, nothing is accounted for and nothing is confined.
"""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.own_ports import free_ports

from corral.docker.daemon import find_program, install_packages

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
READY_S = 60.0

CONFIG = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=defer,sched_min_interval=50000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MaxJobCount=100000
MaxArraySize=10001
MinJobAge=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """Shapes: jobs are submitted as one array and take one processor each."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def run_jobs(self, count: int) -> float:
        """Jobs a second that run `true`, from the request until none is left."""
        begun = time.perf_counter()
        nowhere = ("--output=/dev/null", "--error=/dev/null")
        self._call("sbatch", "--quiet", f"--array=1-{count}", *nowhere, "--chdir=/", "--wrap", "true")
        while self._call("squeue", "--noheader").strip():
            time.sleep(0.1)
        return count / (time.perf_counter() - begun)

    def wait_ready(self) -> None:
        """Errors: `RuntimeError` when the node is not idle in time."""
        give_up_at = time.monotonic() + READY_S
        while "idle" not in (found := self._call("sinfo", "--noheader", check=False)):
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"Slurm's node is not ready after {READY_S:g} s: {found.strip() or 'no answer'}")
            time.sleep(0.2)

    def _call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=check)
        return done.stdout


@contextmanager
def slurm_cluster(directory: Path, *, cpus: int) -> Iterator[SlurmCluster]:
    """Shapes: `cpus` is how many jobs run at once.

    Errors: `Failed` where Slurm cannot be installed; `RuntimeError` when it does not come up.
    """
    if not all(find_program(name) for name in PROGRAMS):
        install_packages(PACKAGES, say=lambda _: None)
    key = directory / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (directory / name).mkdir()
    controller_port, node_port = free_ports(2)
    config = directory / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    config.write_text(
        CONFIG.format(
            directory=directory, host=host, controller_port=controller_port, node_port=node_port, cpus=cpus
        )
    )  # fmt: skip
    environment = {**os.environ, "SLURM_CONF": str(config)}
    munge = (
        "munged", "--foreground", "--force", f"--socket={directory}/munge.socket", f"--key-file={key}",
        f"--pid-file={directory}/munge.pid", f"--log-file={directory}/munge.log", f"--seed-file={directory}/seed",
    )  # fmt: skip
    with ExitStack() as stack:
        for name, *options in (munge, ("slurmctld", "-D"), ("slurmd", "-D")):
            stack.enter_context(_daemon(name, options, environment, directory))
        cluster = SlurmCluster(environment)
        cluster.wait_ready()
        yield cluster


@contextmanager
def _daemon(name: str, options: Sequence[str], environment: dict[str, str], directory: Path) -> Iterator[None]:
    program = find_program(name)
    assert program is not None, f"{name} was installed"
    with (directory / f"{name}.log").open("w") as log:
        process = subprocess.Popen([program, *options], env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)
