"""Whether jobs are taken, and what becomes of them when they are.

Rules: a request is taken whole or not at all; what is answered is durable; when too much waits it is refused with a
time, and nothing is ever taken and lost. A key makes a repeated request, or a repeated job, the one that is there
already. A job that no agent could run is refused, while nobody knows that yet the request waits a moment for it.
Source: the batch contract, API and rules.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

import msgspec

from corral.frameworks.batch import queue
from corral.frameworks.batch.ids import SALT_BITS, write_id
from corral.frameworks.batch.offers import tell_never
from corral.frameworks.batch.outcomes import bundle_key
from corral.frameworks.batch.spec import Bundle, JobSpec, JobState, Submit
from corral.frameworks.batch.state import BundleEntry, Held, Job, State
from corral.lib.errors import Conflict, TooLarge, TooMany, Unprocessable
from corral.model.ids import WantId
from corral.runtime.core import Effect, Note, Persist, Refuse, Reply

UNKNOWN = "no agent has been seen that could run some of these jobs; they wait for one"
MOST_TOLD = 100
_ANY_SIZE = 256 << 20
_BYTES_BESIDE = 40
_BYTES_OF_BUNDLE = 16_384
LEAST_RETRY_S, MOST_RETRY_S = 1.0, 60.0


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: ids in the order of the request; `duplicates` are the places of those that were there before."""

    ids: tuple[str, ...]
    states: tuple[str, ...]
    duplicates: frozenset[int]
    notices: tuple[str, ...] = ()


def submit(state: State, ask: int, command: Submit, now: float, *, patient: bool = True) -> list[Effect]:
    """Take the jobs. Shapes: one that is not `patient` is not held any longer until more is known of it.

    Errors: `Conflict` for a key that stands for something else; `TooMany` with a time when too much waits;
    `Unprocessable` for jobs that no agent could run.
    """
    again = _find_request(state, command)
    if again is not None:
        return [Reply(ask, again)]
    known = _find_known(state, command.jobs)
    fresh = {place: spec for place, spec in enumerate(command.jobs) if place not in known}
    specs = list(fresh.values())
    _check_room(state, specs, now)
    _check_size(state, specs)
    unknown, never = _look_at_shapes(state, fresh)
    if never and command.check:
        details = {f"/jobs({place})": [why] for place, why in islice(never.items(), MOST_TOLD)}
        raise Unprocessable(f"{_tell_never(never)}; ask for less, or for any agent to come with ?check=false", details)
    if unknown and command.check and patient and state.connected:
        held = Held(ask, command, unknown, now + state.config.check_s)
        state.held.append(held)
        state.wants_changed = True
        return []
    notices = ((f"{_tell_never(never)}; they wait for one that can",) if never else ()) + (
        (UNKNOWN,) if unknown else ()
    )
    return _admit(state, ask, command, known, now, notices=notices)


def release(state: State, now: float) -> list[Effect]:
    """Decide the submissions that were waiting for what is known now, or have waited long enough."""
    if not state.held:
        return []
    held, state.held = state.held, []
    effects: list[Effect] = []
    for each in held:
        shapes = [state.shapes[want_id] for want_id in each.shapes]
        never = any(s.never_at is not None for s in shapes)
        open = not never and not all(s.proven for s in shapes)
        if open and now < each.until_at and state.connected:
            state.held.append(each)
            continue
        state.wants_changed = True
        try:
            effects += submit(state, each.ask, each.command, now, patient=False)
        except (Conflict, TooMany, Unprocessable) as error:
            effects.append(Refuse(each.ask, error))
    return effects


def _find_request(state: State, command: Submit) -> Admitted | None:
    seqs = state.requests.get(command.key) if command.key else None
    if seqs is None:
        return None
    first = state.bundles[seqs[0]]
    if first.digest != command.digest:
        raise Conflict(
            f"Idempotency-Key {command.key!r} stands for another request that was taken before; use a key of its own"
        )
    fresh = iter(
        [(bundle, place) for seq in seqs if (bundle := state.bundles.get(seq)) for place in range(len(bundle.jobs))]
    )
    ids: list[str] = []
    states: list[str] = []
    for place in range(len(command.jobs)):
        known = first.duplicates.get(place)
        if known is None:
            bundle, at = next(fresh)
            job, known = bundle.jobs[at], write_id(bundle.head, at, bundle.tail)
        else:
            job = state.find(known)
        ids.append(known)
        states.append("" if job is None else str(job.state))
    return Admitted(ids=tuple(ids), states=tuple(states), duplicates=frozenset(range(len(ids))))


def _find_known(state: State, specs: Sequence[JobSpec]) -> dict[int, Job | int]:
    """The jobs whose keys are taken, by their place: by a job that is there, or by an earlier place of the request.

    Errors: `Conflict` when a key stands for another job.
    """
    known: dict[int, Job | int] = {}
    first: dict[tuple[str, str], int] = {}
    for place, spec in enumerate(specs):
        if not spec.key:
            continue
        key = spec.owner, spec.key
        job, earlier = state.keys.get(key), first.setdefault(key, place)
        if job is not None:
            known[place] = job
        elif earlier != place:
            known[place] = earlier
        other = specs[earlier] if job is None else job.spec
        if other != spec:
            where = f"an earlier job of this request, jobs[{earlier}]" if job is None else f"job {job.id}"
            raise Conflict(f"jobs[{place}].key {spec.key!r} of owner {spec.owner} stands for {where}, which differs")
    return known


def _check_room(state: State, specs: Sequence[JobSpec], now: float) -> None:
    asked: dict[str, int] = {}
    for spec in specs:
        asked[spec.owner] = asked.get(spec.owner, 0) + (spec.array.count if spec.array is not None else 1)
    total, config = sum(asked.values()), state.config
    if total > config.most_queued:
        raise TooLarge(f"{total} jobs are asked for at once, {config.most_queued} may wait at most; send fewer")
    if state.queued + total > config.most_queued:
        _refuse(state, f"{state.queued} jobs wait and {config.most_queued} may", state.queued + total, now)
    for name, count in asked.items():
        owner = state.owners.get(name)
        limit = owner.record.max_queued if owner is not None else None
        most = config.most_queued_owner if limit is None else limit
        queued = 0 if owner is None else owner.queued
        if count > most:
            raise TooLarge(f"{count} jobs of owner {name} are asked for at once, {most} may wait at most; send fewer")
        if queued + count > most:
            _refuse(state, f"{queued} jobs of owner {name} wait and {most} may", queued + count, now)


def _check_size(state: State, specs: Sequence[JobSpec]) -> None:
    """A request is one transaction, so it has to fit into what the store takes at once."""
    most = state.config.most_commit_bytes
    if most > _ANY_SIZE:
        return
    size = len(msgspec.msgpack.encode(specs)) + len(specs) * _BYTES_BESIDE + _BYTES_OF_BUNDLE
    if size > most:
        raise TooLarge(
            f"{len(specs)} jobs of {size} bytes are asked for at once and the cluster's store takes {most}; send fewer"
        )


def _refuse(state: State, why: str, wanted: int, now: float) -> None:
    state.refused += 1
    rate = state.finished.per_s(now)
    over = max(wanted - state.config.most_queued, wanted // 100, 1)
    wait_s = min(max(over / rate if rate else MOST_RETRY_S / 6, LEAST_RETRY_S), MOST_RETRY_S)
    raise TooMany(f"{why}; try again in {wait_s:.0f} s", retry_after_s=wait_s)


def _look_at_shapes(state: State, specs: Mapping[int, JobSpec]) -> tuple[tuple[WantId, ...], dict[int, str]]:
    """The shapes of which nobody knows yet whether any agent could take them; the jobs that none could, with why."""
    unknown: dict[WantId, None] = {}
    never: dict[int, str] = {}
    for place, spec in specs.items():
        shape = queue.shape_of(state, spec, spec.priority)
        if shape.never_at is not None:
            never[place] = tell_never(shape)
        elif not shape.proven:
            unknown[shape.want.id] = None
    return tuple(unknown), never


def _tell_never(never: Mapping[int, str]) -> str:
    return f"no agent of the cluster could ever run {len(never)} of these jobs: {next(iter(never.values()))}"


def _admit(
    state: State, ask: int, command: Submit, known: dict[int, Job | int], now: float, *, notices: tuple[str, ...]
) -> list[Effect]:  # fmt: skip
    fresh = [(place, spec) for place, spec in enumerate(command.jobs) if place not in known]
    jobs: dict[int, Job] = {}
    effects: list[Effect] = []
    made: list[tuple[BundleEntry, Bundle]] = []
    at = max(now, state.last_at)
    for start in range(0, len(fresh), state.config.bundle):
        chunk = fresh[start : start + state.config.bundle]
        state.seq += 1
        record = Bundle(at=at, salt=state.random.getrandbits(SALT_BITS), jobs=tuple(spec for _, spec in chunk))
        bundle = state.add_bundle(state.seq, record)
        made.append((bundle, record))
        for (place, _), job in zip(chunk, bundle.jobs, strict=True):
            assert job is not None
            jobs[place] = job
            enter(state, job)
    found: list[Job] = []
    for place in range(len(command.jobs)):
        other = known.get(place, place)
        found.append(other if isinstance(other, Job) else jobs[other])
    if command.key and made:
        named = {place: found[place].id for place in known}
        first, record = made[0]
        first.digest, first.duplicates = command.digest, named
        made[0] = (
            first,
            msgspec.structs.replace(
                record, parts=len(made), request=command.key, digest=command.digest, duplicates=named
            ),
        )
        state.add_request(command.key, tuple(bundle.seq for bundle, _ in made))
    effects += [Persist(bundle_key(bundle), record) for bundle, record in made]
    state.submitted.add(now, sum(1 if job.array is None else job.array.count for job in jobs.values()))
    answer = Admitted(
        ids=tuple(job.id for job in found), states=tuple(str(job.state) for job in found), duplicates=frozenset(known),
        notices=notices,
    )  # fmt: skip
    effects.append(Reply(ask, answer))
    effects += [Note("jobs wait for an agent", notice, "warning", {"jobs": len(fresh)}) for notice in notices]
    return effects


def enter(state: State, job: Job) -> None:
    """A job that has not been launched yet begins to wait; so do all elements of an array."""
    array = job.array
    count = 1 if array is None else array.count
    if array is not None:
        array.counts[JobState.QUEUED] += count
    state.counts[JobState.QUEUED] += count
    state.queued += count
    state.owner(job.spec.owner).queued += count
    queue.join(state, job)
    if job.spec.queue_timeout > 0:
        state.look_again(job.bundle.at + job.spec.queue_timeout, "expire", job)
