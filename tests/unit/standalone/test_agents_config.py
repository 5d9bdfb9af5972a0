"""What the configuration says of domains, rates and limits, read before anything starts."""

from pathlib import Path

import pytest

from corral.lib.errors import Invalid
from corral.model.domain import Domain
from corral.model.rates import Rate
from corral.standalone.config import parse_rate_limits, parse_removal_rate, read_config
from corral.standalone.parts import describe_master


def test_the_master_is_told_of_its_domain_and_of_all_limits(tmp_path: Path) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text('{"aggregate_default_qps": 10}', encoding="utf-8")
    sets = [
        "master.domain=eu/z1", "kernel.agent_removal_rate_limit=2/10mins", f"kernel.rate_limits={limits}",
        "kernel.max_completed_frameworks=3", "kernel.max_completed_tasks_per_framework=0", "kernel.starving_s=60",
        "kernel.max_unreachable_tasks_per_framework=7",
    ]  # fmt: skip
    found = describe_master(read_config(None, sets, {})[0], "127.0.0.1", 1)
    assert (found.domain, found.removal_every_s) == (Domain(region="eu", zone="z1"), 300.0)
    assert found.rate_limits is not None
    assert found.rate_limits.rest == Rate(qps=10.0)
    assert (found.most_completed_frameworks, found.most_completed_tasks, found.most_unreachable_tasks) == (3, 0, 7)
    assert found.starving_s == 60.0


def test_without_a_word_nothing_is_bounded() -> None:
    assert (parse_removal_rate(""), parse_rate_limits("")) == (0.0, None)
    assert parse_rate_limits('{"limits": []}') is not None


@pytest.mark.parametrize(
    "words",
    [
        "master.domain=eu", "agent.domain=eu/", "kernel.agent_removal_rate_limit=5",
        "kernel.agent_removal_rate_limit=0/1min",
        "kernel.agent_removal_rate_limit=1/0s", "kernel.agent_removal_rate_limit=1/long",
        "kernel.rate_limits=/nowhere.json",
        'kernel.rate_limits={"limits": [{"principal": "a", "qps": 0}]}', "kernel.max_completed_frameworks=-1",
        "kernel.max_completed_tasks_per_framework=-1", "kernel.max_unreachable_tasks_per_framework=0",
        "kernel.starving_s=-1",
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_by_their_key_or_their_form(words: str) -> None:
    with pytest.raises(Invalid):
        read_config(None, [words], {})
