"""`corral role` and `corral rebalance` refuse what would mean something else, before they ask anybody."""

import pytest
from corral_daemons import run_corral


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["role", "set", "a//b", "--weight", "2"], "role 'a//b' has an empty level"),
        (["role", "set", "a/../b", "--weight", "2"], "role 'a/../b'"),
        (["role", "set", "a", "--weight", "nan"], "--weight nan is no weight; give a number above 0"),
        (["role", "set", "a", "--weight", "inf"], "--weight inf is no weight"),
        (["rebalance", "--plan", "--apply"], "--plan shows the moves and --apply carries them out; name one"),
    ],
)
def test_what_is_meant_otherwise_is_refused(words: list[str], said: str) -> None:
    answer = run_corral("", *words)
    assert (answer.code, said in answer.err) == (2, True), answer
