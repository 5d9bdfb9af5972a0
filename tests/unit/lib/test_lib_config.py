"""Configuration comes from file, environment and flags, in this order, and is checked whole."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from corral.lib.config import describe_config, load_config
from corral.lib.errors import Invalid


@dataclass(frozen=True, kw_only=True)
class Kernel:
    agent_timeout_s: float = 75.0
    journal: bool = False
    name: str | None = None
    roles: tuple[str, ...] = ()
    token: str = field(default="", metadata={"secret": True})


@dataclass(frozen=True, kw_only=True)
class Config:
    kernel: Kernel = Kernel()


def test_each_later_source_wins_and_the_origin_is_told(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_text('[kernel]\nagent_timeout_s = 10\nname = "from-file"\nroles = ["a", "b"]\n')
    config, origins = load_config(
        Config, file=str(file), environment={"CORRAL_KERNEL_NAME": "from-env"}, sets=["kernel.agent_timeout_s=2.5"]
    )
    assert config.kernel == Kernel(agent_timeout_s=2.5, name="from-env", roles=("a", "b"))
    assert origins["kernel.agent_timeout_s"] == "--set"
    assert origins["kernel.name"] == "CORRAL_KERNEL_NAME"
    assert origins["kernel.roles"] == str(file)
    assert origins["kernel.journal"] == "default"


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(Invalid, match=r"kernel\.agent_timout_s, which is no key; did you mean kernel\.agent_timeout_s"):
        load_config(Config, file=None, environment={}, sets=["kernel.agent_timout_s=3"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kernel.agent_timeout_s=soon", "'soon', which is not float"),
        ("kernel.journal=perhaps", "'perhaps', which is not bool"),
        ("journal", "not of the form section.key=value"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        load_config(Config, file=None, environment={}, sets=[text])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_text("[kernel\n")
    with pytest.raises(Invalid, match=r"corral\.toml is not TOML"):
        load_config(Config, file=str(file), environment={}, sets=[])
    with pytest.raises(Invalid, match="cannot be read"):
        load_config(Config, file=str(tmp_path / "missing.toml"), environment={}, sets=[])


def test_secrets_are_not_shown() -> None:
    config, origins = load_config(Config, file=None, environment={}, sets=["kernel.token=hush"])
    assert ("kernel.token", "***", "--set") in describe_config(config, origins)
