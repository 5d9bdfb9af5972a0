"""Apps of a registry as tests write them."""

from collections.abc import Callable
from typing import Any

import pytest

from corral.discovery.registry import App, Endpoint, Instance, Port


def make_app(
    app_id: str = "/shop/web",
    *,
    count: int = 2,
    ports: tuple[Port, ...] | None = None,
    labels: dict[str, str] | None = None,
    ready: int | None = None,
    **fields: Any,
) -> App:
    """Shapes: instance n runs on 10.0.0.n and its port i answers at 31000 + i; the first `ready` are ready."""
    declared = (Port(index=0, name="http", service_port=10000),) if ports is None else ports
    instances = tuple(
        Instance(
            id=f"{app_id.strip('/').replace('/', '_')}.instance-00000000-0000-11f1-0000-{n:012x}",
            host=f"node{n}",
            node_ip=f"10.0.0.{n}",
            ips=(f"172.17.0.{n}",),
            endpoints=tuple(Endpoint(address=f"10.0.0.{n}", port=31000 + i) for i in range(len(declared))),
            state="Running",
            ready=ready is None or n <= ready,
        )
        for n in range(1, count + 1)
    )
    return App(id=app_id, ports=declared, labels=labels or {}, instances=instances, **fields)


@pytest.fixture
def app() -> Callable[..., App]:
    return make_app
