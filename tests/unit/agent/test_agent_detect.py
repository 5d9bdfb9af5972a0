"""What an agent gives away of its node."""

import pytest

from corral.agent.detect import leave_disk_mb, leave_mem_mb


@pytest.mark.parametrize(("total", "left"), [(1000, 500), (2048, 1024), (2049, 1025), (16384, 15360)])
def test_memory_keeps_headroom_for_the_node(total: int, left: int) -> None:
    assert leave_mem_mb(total) == left


@pytest.mark.parametrize(("total", "left"), [(1000, 500), (10240, 5120), (10241, 5121), (100_000, 94_880)])
def test_disk_keeps_headroom_for_the_node(total: int, left: int) -> None:
    assert leave_disk_mb(total) == left
