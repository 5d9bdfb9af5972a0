"""Recording inputs and running them again."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from corral.lib.errors import Conflict, Invalid, NotFound
from corral.runtime.core import Asked, Effect, Loaded, Persist, Refuse, Reply, Stored, Tick, decide
from corral.runtime.journal import Header, Journal, Replayable, fingerprint, replay


class Row(msgspec.Struct, frozen=True):
    n: int


class Add(msgspec.Struct, frozen=True, tag=True):
    n: int


class Take(msgspec.Struct, frozen=True, tag=True):
    n: int


Command = Add | Take
Input = Loaded | Tick | Asked[Command] | Add


class Counter:
    """A core with a sum, a random choice and commands that may be refused. `bias` makes it another core."""

    def __init__(self, random: Random, bias: int = 0) -> None:
        self.sum = 0
        self.random = random
        self.bias = bias

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Add(n=13):
                raise ValueError("unlucky")
            case Add(n=n):
                self.sum += n
                return [Persist("sum", Row(self.sum + (self.bias if self.sum > 5 else 0)))]
            case Asked(ask=ask, command=Take(n=n)):
                if n > self.sum:
                    raise Conflict(f"wanted {n}, there are {self.sum}")
                self.sum -= n
                return [Reply(ask, {"left": self.sum, "lot": self.random.random(), "seen": {"b", "a"}})]
        return []

    def invariants(self) -> None: ...


def build(header: Header) -> Counter:
    return Counter(Random(header.seed))


KNOWN = {"counter": Replayable(Input, build)}
INPUTS: list[Any] = [
    Loaded((Stored("sum", b"\x00"),)),
    Add(4),
    Asked(1, Take(n=3)),
    Asked(2, Take(n=30)),
    Tick("x"),
    Add(9),
    Asked(3, Take(n=1)),
]


def record(path: Path, inputs: Sequence[Any] = INPUTS, **options: Any) -> str | None:
    header = Header(component="counter", seed=3, drain=256)
    journal, core = Journal(str(path), header, **options), build(header)
    why = None
    for at, input in enumerate(inputs):
        try:
            effects = decide(core, input, float(at))
        except ValueError:
            journal.record(input, float(at), None)
            break
        journal.record(input, float(at), effects)
        why = journal.flush() or why
    journal.close()
    return why


def test_a_recorded_run_is_decided_the_same_again(tmp_path: Path) -> None:
    record(tmp_path / "j")
    result = replay(str(tmp_path / "j"), KNOWN)
    assert (result.component, result.inputs, result.divergence, result.cut_short) == ("counter", 7, None, False)


def test_who_watches_sees_what_was_decided_as_recorded(tmp_path: Path) -> None:
    record(tmp_path / "j")
    seen: list[tuple[Any, float, int]] = []

    def watch(input: Any, now: float, effects: Sequence[Effect]) -> None:
        seen.append((input, now, len(effects)))

    replay(str(tmp_path / "j"), KNOWN, watch=watch)
    counts = (0, 1, 1, 1, 0, 1, 1)
    assert seen == [(input, float(at), counts[at]) for at, input in enumerate(INPUTS)]
    seen.clear()
    other = {"counter": Replayable(Input, lambda header: Counter(Random(header.seed), bias=1))}
    replay(str(tmp_path / "j"), other, watch=watch)
    assert len(seen) == 5, "nothing is seen from the first input on that is decided otherwise"


def test_another_core_is_caught_at_the_first_input_it_decides_otherwise(tmp_path: Path) -> None:
    record(tmp_path / "j")
    other = {"counter": Replayable(Input, lambda header: Counter(Random(header.seed), bias=1))}
    divergence = replay(str(tmp_path / "j"), other).divergence
    assert divergence is not None
    assert (divergence.number, divergence.now, divergence.input) == (6, 5.0, Add(9))
    assert "Row(n=11)" in str(divergence)


def test_another_seed_is_caught_where_chance_was_used(tmp_path: Path) -> None:
    record(tmp_path / "j")
    other = {"counter": Replayable(Input, lambda header: Counter(Random(header.seed + 1)))}
    divergence = replay(str(tmp_path / "j"), other).divergence
    assert divergence is not None
    assert divergence.number == 3


def test_an_input_on_which_the_core_failed_fails_it_again(tmp_path: Path) -> None:
    record(tmp_path / "j", [Add(1), Add(13)])
    result = replay(str(tmp_path / "j"), KNOWN)
    assert (result.inputs, result.divergence) == (2, None)


def test_a_core_that_fails_where_it_did_not_before_diverges(tmp_path: Path) -> None:
    record(tmp_path / "j", [Add(1), Add(2)])

    class Fragile(Counter):
        def handle(self, input: Any, now: float) -> Sequence[Effect]:
            raise KeyError("new bug")

    divergence = replay(str(tmp_path / "j"), {"counter": Replayable(Input, lambda h: Fragile(Random(0)))}).divergence
    assert divergence is not None
    assert divergence.decided == "raises KeyError: 'new bug'"


def test_a_mended_core_is_told_from_the_one_that_failed(tmp_path: Path) -> None:
    record(tmp_path / "j", [Add(13)])

    class Mended(Counter):
        def handle(self, input: Any, now: float) -> Sequence[Effect]:
            return []

    divergence = replay(str(tmp_path / "j"), {"counter": Replayable(Input, lambda h: Mended(Random(0)))}).divergence
    assert divergence is not None
    assert divergence.number == 1


def test_a_file_cut_short_is_replayed_up_to_its_last_whole_entry(tmp_path: Path) -> None:
    record(tmp_path / "j")
    body = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(body[:-3])
    result = replay(str(tmp_path / "j"), KNOWN)
    assert (result.inputs, result.cut_short) == (6, True)


def test_a_file_that_reaches_its_size_ends_the_recording_with_a_reason(tmp_path: Path) -> None:
    why = record(tmp_path / "j", [Add(0)] * 100, most_bytes=500)
    assert why is not None
    assert "has reached 500 bytes" in why
    assert 500 <= (tmp_path / "j").stat().st_size < 600
    assert replay(str(tmp_path / "j"), KNOWN).divergence is None


def test_the_last_three_files_are_kept(tmp_path: Path) -> None:
    for n in range(5):
        record(tmp_path / "j", [Add(1)] * (n + 1))
    kept = {path.name: replay(str(path), KNOWN).inputs for path in tmp_path.iterdir()}
    assert kept == {"j": 5, "j.1": 4, "j.2": 3}


def test_a_single_file_may_be_kept_alone(tmp_path: Path) -> None:
    for n in range(2):
        record(tmp_path / "j", [Add(1)] * (n + 1), kept=1)
    assert {path.name: replay(str(path), KNOWN).inputs for path in tmp_path.iterdir()} == {"j": 2}


def test_what_cannot_be_written_down_ends_the_recording_not_the_work(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), Header(component="counter", seed=0, drain=1))
    journal.record(object(), 0.0, [])
    why = journal.flush()
    assert why is not None
    assert "object" in why
    journal.record(Add(1), 0.0, [])
    assert journal.flush() is None
    journal.close()


def test_a_journal_is_for_its_owner_alone(tmp_path: Path) -> None:
    record(tmp_path / "sub" / "j")
    assert (tmp_path / "sub" / "j").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("body", [b"", b"no", b"\x00\x00\x00\x02hi", b"\xff\xff\xff\xff" * 10])
def test_what_is_no_journal_is_named_so(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "j").write_bytes(body)
    with pytest.raises(Invalid, match="journal"):
        replay(str(tmp_path / "j"), KNOWN)


def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    Journal(str(tmp_path / "j"), Header(component="counter", seed=0, drain=1, format=99)).close()
    with pytest.raises(Invalid, match="format 99"):
        replay(str(tmp_path / "j"), KNOWN)


def test_a_journal_of_an_unknown_component_is_refused(tmp_path: Path) -> None:
    Journal(str(tmp_path / "j"), Header(component="stranger", seed=0, drain=1)).close()
    with pytest.raises(NotFound, match="stranger"):
        replay(str(tmp_path / "j"), KNOWN)


def test_inputs_of_another_kind_are_named_by_their_number(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), Header(component="counter", seed=0, drain=1))
    journal.record(Add(1), 0.0, [Persist("sum", Row(1))])
    journal.record(Take(1), 0.0, [])
    journal.close()
    with pytest.raises(Invalid, match="entry 2"):
        replay(str(tmp_path / "j"), KNOWN)


def test_fingerprints_tell_effects_apart_and_ignore_the_order_of_sets() -> None:
    class Other(Effect, frozen=True):
        ask: int
        value: Any = None

    one = Reply(1, {"a", "b", "c", "d"})
    assert fingerprint([one]) == fingerprint([Reply(1, {"d", "c", "b", "a"})])
    assert fingerprint([one]) != fingerprint([Reply(2, {"a", "b", "c", "d"})])
    assert fingerprint([Reply(1)]) != fingerprint([Other(1)])
    assert fingerprint([Refuse(1, Conflict("x"))]) != fingerprint([Refuse(1, Conflict("y"))])
    assert fingerprint([Refuse(1, Conflict("x"))]) == fingerprint([Refuse(1, Conflict("x"))])
