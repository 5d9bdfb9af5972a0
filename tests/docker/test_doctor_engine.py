"""The doctor in front of a real Engine."""

import asyncio
from pathlib import Path

import pytest

from corral.doctor.checks import Verdict, examine
from corral.doctor.probe import Options, find_facts

pytestmark = pytest.mark.docker


async def test_a_real_engine_is_seen_with_whether_its_tasks_outlive_it(engine_socket: str, tmp_path: Path) -> None:
    options = Options(role="agent", work_dir=tmp_path, listen="127.0.0.1:0", docker_host=engine_socket)
    facts = await asyncio.to_thread(find_facts, options)
    assert facts.docker is not None
    assert facts.docker.why == ""
    found = {f.name: f for f in examine(facts)}
    assert found["docker"].verdict is Verdict.OK, found["docker"]
    assert facts.docker.version in found["docker"].found
    assert found["live restore"].verdict is (Verdict.OK if facts.docker.live_restore else Verdict.FAIL)
    assert "docker logs" in found
