"""What the trees of this directory share: places for daemons of their own, which end with all their tasks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from corral_daemons import Site


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as one:
        yield one
