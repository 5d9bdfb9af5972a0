"""Errors of the command line: one line, its exit code, no traceback."""

import pytest

from corral.cli.main import main


def test_a_master_that_does_not_answer_is_exit_code_5(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--addr", "http://127.0.0.1:1", "nodes"])
    assert ended.value.code == 5
    error = capsys.readouterr().err
    assert "no master answers at http://127.0.0.1:1" in error
    assert "Traceback" not in error
