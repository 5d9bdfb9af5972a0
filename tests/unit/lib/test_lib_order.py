"""What waits for what, and in which order all may go."""

from corral.lib.order import find_waves, peel, turn

DIAMOND = {"join": ("left", "right"), "left": ("root",), "right": ("root",), "root": ()}


def test_a_wave_has_all_whose_others_are_in_earlier_ones() -> None:
    assert find_waves(DIAMOND) == [["root"], ["left", "right"], ["join"]]
    assert peel(DIAMOND) == ["root", "left", "right", "join"]


def test_what_goes_in_circles_comes_after_one_or_waits_for_nobody_known_is_left_out() -> None:
    waits = {"a": ("b",), "b": ("a",), "after": ("a",), "itself": ("itself",), "lost": ("unknown",), "free": ()}
    assert peel(waits) == ["free"]


def test_what_waits_for_each_is_in_the_order_of_those_that_wait() -> None:
    assert turn(DIAMOND) == {"left": ["join"], "right": ["join"], "root": ["left", "right"]}
