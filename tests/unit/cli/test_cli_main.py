"""The command itself: help, unknown commands, lazy imports."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from corral.cli.main import SECTIONS, cli, main

HEAVY = ("aiohttp", "numpy", "rich", "corral.master", "corral.agent", "corral.standalone", "yaml")


def test_help_lists_every_command_by_section() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    for section, commands in SECTIONS.items():
        assert f"{section}:" in text
        for name in commands:
            assert f"  {name} " in text


@pytest.mark.parametrize("name", [name for commands in SECTIONS.values() for name in commands])
def test_every_command_has_its_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["statsu"])
    assert ended.value.code == 2
    assert "did you mean status" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from corral.cli.main import cli; "
        "CliRunner().invoke(cli, ['--help']); print(' '.join(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in HEAVY if name in loaded] == []
