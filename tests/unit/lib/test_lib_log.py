"""The form of log lines."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from corral.lib.log import Logger, configure_log, flush_log, get_logger, render_json, render_text

AT = 1795257824.947


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_text_line_is_a_phrase_and_keys() -> None:
    line = render_text(AT, "info", "master", "task launched", {"task": "web.3", "why": "deployment d12 step 2"})
    assert line == '2026-11-21T10:43:44.947Z info    master    task launched task=web.3 why="deployment d12 step 2"\n'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", '"a b"'),
        ("", '""'),
        ('say "x"', '"say \\"x\\""'),
        ("two\nlines", '"two\\nlines"'),
        (3, "3"),
        ("a=b", '"a=b"'),
        ("a\rb\tc", '"a\\rb\\tc"'),
        ("\x1b[2J\0\u2028", '"\\u001b[2J\\u0000\\u2028"'),
        ("größe", '"größe"'),
    ],
)
def test_values_that_are_no_single_word_are_quoted(value: object, text: str) -> None:
    assert render_text(AT, "info", "m", "x", {"k": value}).endswith(f" k={text}\n")


def test_a_json_line_is_one_object() -> None:
    line = render_json(AT, "warning", "agent", "master lost", {"why": "a\nb", "odd": {1, 2} and object})
    read = json.loads(line)
    assert line.count("\n") == 1
    assert (read["at"], read["level"], read["component"], read["what"], read["why"]) == (
        "2026-11-21T10:43:44.947Z", "warning", "agent", "master lost", "a\nb",
    )  # fmt: skip


def test_notes_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    configure_log("json", "warning", out)
    logger = Logger("master")
    logger.write("info", "quiet", {})
    logger.write("warning", "loud", {"task": "t"}, AT)
    flush_log()
    assert [json.loads(line)["what"] for line in out.getvalue().splitlines()] == ["loud"]


def test_a_phrase_of_a_library_stays_on_its_line() -> None:
    assert render_text(AT, "error", "aiohttp", "bad\n2026 info all well", {}).count("\n") == 1


def test_lines_are_held_until_the_flush_and_an_error_takes_them_along() -> None:
    out = io.StringIO()
    configure_log("json", "info", out)
    logger = Logger("master")
    logger.write("info", "first", {}, AT)
    assert out.getvalue() == ""
    logger.write("error", "second", {}, AT)
    logger.write("info", "third", {}, AT)
    get_logger("server").info("fourth")
    logger.write("info", "fifth", {}, AT)
    flush_log()
    flush_log()
    assert [json.loads(line)["what"] for line in out.getvalue().splitlines()] == [
        "first", "second", "third", "fourth", "fifth",
    ]  # fmt: skip


def test_a_flood_of_lines_is_not_held_for_ever() -> None:
    out = io.StringIO()
    configure_log("text", "info", out)
    for _ in range(1000):
        Logger("master").write("info", "task launched", {}, AT)
    assert out.getvalue().count("\n") >= 700


@given(st.floats(0, 4e9))
def test_instants_are_told_to_the_millisecond(at: float) -> None:
    text = render_text(at, "info", "m", "x", {})[:24]
    assert 0 <= at - datetime.fromisoformat(text).timestamp() < 0.00101


def test_facts_named_like_parts_of_a_line_get_an_underscore() -> None:
    out = io.StringIO()
    configure_log("json", "info", out)
    Logger("master").write("info", "x", {"event": 1, "level": 2, "at": 3, "self": 4, "component": 5}, AT)
    flush_log()
    read = json.loads(out.getvalue())
    assert [read[f"{key}_"] for key in ("event", "level", "at", "self", "component")] == [1, 2, 3, 4, 5]
    assert read["component"] == "master"


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_logged_with_its_traceback(form: str) -> None:
    out = io.StringIO()
    configure_log(form, "info", out)
    with suppress(ZeroDivisionError):
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            get_logger("server").exception("request failed", path="/x")
            raise
    assert "ZeroDivisionError" in out.getvalue()
    assert "Traceback" in out.getvalue()
    if form == "json":
        assert out.getvalue().count("\n") == 1


def test_loggers_made_before_the_configuration_obey_it() -> None:
    early, out = get_logger("early"), io.StringIO()
    configure_log("json", "info", out)
    early.info("hello", n=1)
    assert json.loads(out.getvalue())["component"] == "early"


def test_what_libraries_log_comes_out_in_the_same_form() -> None:
    out = io.StringIO()
    configure_log("json", "info", out)
    logging.getLogger("asyncio").warning("slow %s", 3)
    logging.getLogger("aiohttp.access").info("noise")
    (read,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (read["component"], read["level"], read["what"]) == ("asyncio", "warning", "slow 3")


def test_a_log_that_nobody_takes_does_not_stop_the_work() -> None:
    out = io.StringIO()
    configure_log("text", "info", out)
    out.close()
    get_logger("x").info("into nothing")


@pytest.mark.parametrize(("form", "level"), [("xml", "info"), ("text", "loud")])
def test_an_unknown_form_or_level_is_refused(form: str, level: str) -> None:
    with pytest.raises(ValueError, match="wanted text or json"):
        configure_log(form, level)
