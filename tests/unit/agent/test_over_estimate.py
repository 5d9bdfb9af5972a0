"""What is lent of what tasks leave unused never exceeds that, and only what is revocable ends when it was too much."""

from hypothesis import given
from hypothesis import strategies as st

from corral.agent.oversubscription import (
    CPUS,
    MEM,
    STEPS,
    Held,
    Sample,
    choose_victims,
    estimate_slack,
    find_pressed,
    follow,
    latest_use,
    settle_told,
    steady_use,
)
from corral.model.ids import ContainerId


def held(id: str, cpus: int, used: int | None = None, since_at: float = 0.0, **more: bool) -> Held:
    mem = 1_000_000
    return Held(
        ContainerId(id), since_at, {CPUS: cpus, MEM: mem}, None if used is None else {CPUS: used, MEM: mem}, **more
    )


def samples(*points: tuple[float, float, float], window_s: float = 60.0) -> tuple[Sample, ...]:
    found: tuple[Sample, ...] = ()
    for point in points:
        found = follow(found, Sample(*point), window_s)
    return found


amounts = st.integers(0, 64_000)
tasks = st.lists(
    st.builds(
        Held,
        st.uuids().map(lambda u: ContainerId(str(u))),
        st.floats(0, 1e6),
        st.fixed_dictionaries({CPUS: amounts, MEM: amounts.map(lambda n: n * 1000)}),
        st.none() | st.fixed_dictionaries({CPUS: amounts, MEM: amounts.map(lambda n: n * 1000)}),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
)
told = st.fixed_dictionaries({CPUS: amounts, MEM: amounts.map(lambda n: n * 1000)})


@given(tasks, st.floats(0, 1), told)
def test_never_more_is_lent_than_the_slack_less_the_margin(
    found: list[Held], margin: float, before: dict[str, int]
) -> None:
    lent = settle_told(before, estimate_slack(found, margin))
    firm = [task for task in found if not task.revocable]
    for name in STEPS:
        allocated = sum(task.allocated[name] for task in firm)
        used = sum((task.used or task.allocated)[name] for task in firm)
        assert 0 <= lent[name] <= max(0.0, allocated - used - margin * allocated)


@given(tasks, told, st.floats(0.1, 1))
def test_no_victim_holds_anything_for_good_and_no_more_end_than_are_needed(
    found: list[Held], total: dict[str, int], threshold: float
) -> None:
    pressed = find_pressed(found, total, threshold)
    victims = choose_victims(found, pressed)
    assert all(victim.revocable and victim.borrows and not victim.ending for victim in victims)
    if victims:
        ended = {victim.container_id for victim in victims[:-1]}
        left = [task for task in found if task.container_id not in ended]
        assert find_pressed(left, total, threshold), "the last one had to end too"


def test_what_is_not_measured_counts_as_fully_used() -> None:
    assert estimate_slack([held("a", 2000, None), held("b", 1000, 200)], 0.0)[CPUS] == 800
    assert estimate_slack([held("a", 2000, None), held("b", 1000, 200)], 0.1)[CPUS] == 500
    assert estimate_slack([held("a", 2000, 0, revocable=True)], 0.0)[CPUS] == 0


def test_a_task_that_takes_more_than_it_holds_leaves_less_to_lend() -> None:
    assert estimate_slack([held("a", 1000, 1500), held("b", 1000, 0)], 0.0)[CPUS] == 500
    assert estimate_slack([held("a", 1000, 3000), held("b", 1000, 0)], 0.0)[CPUS] == 0


def test_use_is_relied_upon_after_a_whole_window_only() -> None:
    calm = samples((0, 0, 10), (30, 15, 10))
    assert steady_use(calm, 60.0) is None
    assert latest_use(calm) == {CPUS: 500, MEM: 10_000}
    assert steady_use(samples((0, 0, 10), (30, 15, 10), (60, 30, 10)), 60.0) == {CPUS: 500, MEM: 10_000}


def test_the_mean_counts_unless_the_latest_use_is_higher_and_of_memory_the_peak() -> None:
    fell = samples((0, 0, 100), (30, 30, 900), (60, 30, 50))
    assert steady_use(fell, 60.0) == {CPUS: 500, MEM: 900_000}
    rose = samples((0, 0, 100), (30, 0, 100), (60, 30, 100))
    assert steady_use(rose, 60.0) == {CPUS: 1000, MEM: 100_000}


def test_what_was_before_the_window_is_forgotten() -> None:
    found = samples(*((float(at), 0.0, 900.0 if at == 0 else 10.0) for at in range(0, 200, 5)))
    assert len(found) == 13
    assert steady_use(found, 60.0) == {CPUS: 0, MEM: 10_000}


def test_another_process_of_the_same_number_starts_anew() -> None:
    assert samples((0, 50, 1), (60, 80, 1), (65, 0.5, 1)) == (Sample(65, 0.5, 1),)


def test_less_is_told_at_once_and_more_from_two_steps_on() -> None:
    assert settle_told({}, {CPUS: 199})[CPUS] == 0
    assert settle_told({}, {CPUS: 250})[CPUS] == 200
    assert settle_told({CPUS: 200}, {CPUS: 399})[CPUS] == 200
    assert settle_told({CPUS: 200}, {CPUS: 400})[CPUS] == 400
    assert settle_told({CPUS: 200}, {CPUS: 199})[CPUS] == 100


def test_the_newest_that_borrows_ends_first_and_the_idle_one_and_the_loan_stay() -> None:
    found = [
        held("firm", 2500, 2500, since_at=9.0),
        held("old", 500, 500, since_at=1.0, revocable=True, borrows=True),
        held("new", 500, 500, since_at=3.0, revocable=True, borrows=True),
        held("loan", 500, 500, since_at=5.0, revocable=True),
        held("idle", 500, 0, since_at=4.0, revocable=True, borrows=True),
    ]
    pressed = find_pressed(found, {CPUS: 4000, MEM: 4_000_000}, 0.95)
    assert pressed[CPUS] == 200
    assert [v.container_id for v in choose_victims(found, {CPUS: 200})] == ["new"]
    assert [v.container_id for v in choose_victims(found, {CPUS: 600})] == ["new", "old"]


def test_a_task_that_is_ending_does_not_press_and_is_not_ended_twice() -> None:
    found = [held("firm", 3000, 3000), held("b", 1000, 1000, revocable=True, borrows=True, ending=True)]
    assert find_pressed(found, {CPUS: 4000, MEM: 4_000_000}, 0.95) == {}
    assert choose_victims(found, {CPUS: 500}) == []
