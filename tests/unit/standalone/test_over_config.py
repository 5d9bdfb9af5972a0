"""What oversubscription cannot be configured as is refused at the start, by the key's name."""

import pytest

from corral.lib.errors import Invalid
from corral.standalone.config import read_config


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("agent.oversubscribe_margin=1.5", "a fraction from 0 to 1"),
        ("agent.oversubscribe_margin=-0.1", "a fraction from 0 to 1"),
        ("agent.oversubscribe_pressure=0", "a fraction from 0.1 to 1"),
        ("agent.oversubscribe_pressure_s=5", "10 or more"),
    ],
)
def test_a_setting_that_would_end_work_for_nothing_is_refused(setting: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        read_config(None, ["agent.oversubscribe=true", setting], {})
    assert setting.partition("=")[0] in str(refused.value)


def test_nothing_is_lent_unless_it_is_asked() -> None:
    config, _ = read_config(None, [], {})
    assert config.agent.oversubscribe is False
    config, _ = read_config(None, ["agent.oversubscribe=true", "agent.oversubscribe_margin=0.25"], {})
    assert (config.agent.oversubscribe, config.agent.oversubscribe_margin) == (True, 0.25)
