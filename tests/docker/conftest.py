"""Nodes with a real Engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from docker_node import Node

from corral.docker.daemon import PrivateEngine


@pytest.fixture
async def node(tmp_path: Path, engine_socket: str) -> AsyncIterator[Node]:
    made = Node(tmp_path, engine_socket)
    yield made
    await made.close()


@pytest.fixture
async def own_node(tmp_path: Path, private_engine: PrivateEngine) -> AsyncIterator[Node]:
    """A node whose Engine the test may hurt; it is well again afterwards."""
    made = Node(tmp_path, private_engine.url)
    yield made
    private_engine.start()
    await made.close()
