"""Health checks of containers on a real Engine: by the container's address, by the node's port, by a command inside."""

import asyncio
import time

import pytest
from docker_node import Node
from tests.own_ports import free_ports

from corral.agent.effects import Probe
from corral.agent.probes import Prober
from corral.agent.spec import Probed
from corral.model.command import CommandInfo
from corral.model.container import NetworkMode, PortMapping
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ContainerId

pytestmark = pytest.mark.docker

SERVE = "echo well > /var/www/up; touch /ok; exec httpd -f -p 80 -h /var/www"


async def test_a_container_is_probed_from_outside_and_from_inside(node: Node) -> None:
    port = free_ports(1)[0]
    execution = node.execution(
        SERVE, network=NetworkMode.BRIDGE, port_mappings=(PortMapping(container_port=80, host_port=port),)
    )
    launched = await node.runtime.start(execution)
    assert launched.ip is not None
    prober = Prober(lambda name, container_id, argv: node.runtime.exec(container_id, argv, tty=False))

    async def probe(check: HealthCheck, address: str = "127.0.0.1") -> Probed:
        return await prober.probe(Probe("docker", ContainerId(execution.container_id), 0, check, address))

    def command(value: str, **more: float) -> HealthCheck:
        return HealthCheck(kind=CheckKind.COMMAND, command=CommandInfo(value=value), **more)  # type: ignore[arg-type]

    try:
        inside = HealthCheck(kind=CheckKind.HTTP, port=80, path="/up")
        until = time.monotonic() + 20
        while (told := await probe(inside, launched.ip)).code != 200:
            assert time.monotonic() < until, told
            await asyncio.sleep(0.05)
        assert (await probe(HealthCheck(kind=CheckKind.HTTP, port=port, path="/up"))).code == 200
        assert (await probe(HealthCheck(kind=CheckKind.HTTP, port=port, path="/down"))).code == 404
        assert (await probe(HealthCheck(kind=CheckKind.TCP, port=port))).why is None
        assert "refused" in ((await probe(HealthCheck(kind=CheckKind.TCP, port=81), launched.ip)).why or "")
        assert (await probe(command("test -e /ok"))).code == 0
        told = await probe(command("echo not here >&2; test -e /none"))
        assert (told.code, told.said) == (1, "not here")
        told = await probe(command("sleep 60", timeout_s=0.5))
        assert (told.why, told.void) == ("there was no answer within 0.5 s", False)
        await node.runtime.kill(execution.container_id, 0.0)
        await node.runtime.wait(execution.container_id)
        assert (await probe(command("true"))).void, "a container that has ended is not ill"
    finally:
        await prober.close()
