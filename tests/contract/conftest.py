"""Which event loop a test of this tree runs on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
from paced_loop import PacedLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("paced") is not None:
        return {"paced": PacedLoop}
    return {"plain": asyncio.new_event_loop}
