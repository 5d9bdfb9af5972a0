"""Which jobs wait for which, and when a join is complete.

Rule: when all parents of a job descend from one and the same root, a join fires once for each round, a round being one
firing of that root, as soon as every parent has succeeded in it; rounds never mix. Else there is no common round, and a
parent's success counts up its edge: the job fires when that edge's new count is the least of all its edges, and its
start sets all of them to 0. Both are kept for every edge, so a change of the graph only changes which of them speaks.
Source: Chronos' contract, section 3.
"""

from collections.abc import Collection, Mapping

from corral.frameworks.cron.spec import Edges
from corral.lib.errors import Invalid

MOST_ROUNDS = 32
"""Open rounds that a job remembers; the oldest, never completed, go first."""

Parents = Mapping[str, tuple[str, ...]]
"""The parents of each job; a job that is not in it, or has none, is a root."""


def check_parents(name: str, parents: Collection[str], known: Parents, *, has_children: bool = True) -> None:
    """Whether a job may have these parents. Shapes: one without children can be in no circle but its own.

    Errors: `Invalid` names the parent that is missing, or the path that leads back to the job.
    """
    missing = sorted(p for p in parents if p not in known and p != name)
    if missing:
        raise Invalid(f"job {name!r} names the parents {', '.join(missing)}, which do not exist; create them first")
    path = find_path(name, parents, known) if has_children or name in parents else []
    if path:
        raise Invalid(f"job {name!r} would wait for itself: {' -> '.join(path)}; take out one of these edges")


def find_path(name: str, parents: Collection[str], known: Parents) -> list[str]:
    """How the job would come to wait for itself, from parent to child with the job at both ends; empty when never."""
    child_of: dict[str, str] = {}
    queue = sorted(parents)
    child_of.update(dict.fromkeys(queue, name))
    for found in queue:
        if found == name:
            path, at = [name], child_of[name]
            while at != name:
                path.append(at)
                at = child_of[at]
            return [*path, name]
        for above in known.get(found, ()):
            if above not in child_of:
                child_of[above] = found
                queue.append(above)
    return []


def find_roots(name: str, known: Parents) -> set[str]:
    """The jobs without parents that the job descends from; itself when it has none."""
    seen, queue, roots = {name}, [name], set()
    for found in queue:
        above = known.get(found, ())
        if not above:
            roots.add(found)
        for parent in above:
            if parent not in seen:
                seen.add(parent)
                queue.append(parent)
    return roots


def common_root(parents: Collection[str], known: Parents) -> str | None:
    """The one root that every parent descends from alone; None when there is no such."""
    roots: set[str] = set()
    for parent in sorted(parents):
        roots |= find_roots(parent, known)
        if len(roots) > 1:
            return None
    return next(iter(roots), None)


def hear_success(
    edges: Edges, parents: Collection[str], parent: str, round: str, by_round: bool
) -> tuple[Edges, str | None]:
    """A parent has succeeded. Shapes: returns the edges after it, and the round in which the job fires, if it does.

    Without common rounds the job fires in the round that completed it.
    """
    counts = {p: edges.counts.get(p, 0) for p in parents}
    counts[parent] = counts.get(parent, 0) + 1
    rounds = {r: set(heard) & set(parents) for r, heard in edges.rounds}
    rounds.setdefault(round, set()).add(parent)
    complete = rounds[round] >= set(parents)
    if complete:
        del rounds[round]
    fires = complete if by_round else counts[parent] == min(counts.values())
    kept = [(r, tuple(sorted(heard))) for r, heard in rounds.items() if heard]
    return Edges(counts=counts, rounds=tuple(kept[-MOST_ROUNDS:])), round if fires else None


def reset(edges: Edges) -> Edges:
    """The job was started: it counts anew. Rounds that are still open are others than the one that it runs for."""
    return Edges(counts={}, rounds=edges.rounds)


def adopt_parents(edges: Edges, parents: Collection[str]) -> Edges:
    """The edges after a change of the parents: those there before and after keep what they have."""
    rounds = [(r, tuple(p for p in heard if p in parents)) for r, heard in edges.rounds]
    return Edges(
        counts={p: n for p, n in edges.counts.items() if p in parents}, rounds=tuple((r, h) for r, h in rounds if h)
    )


def inherit(parents: tuple[str, ...], gone: str, grandparents: tuple[str, ...]) -> tuple[str, ...]:
    """The parents of a child whose parent goes: those of the parent take its place."""
    return tuple(sorted({p for p in parents if p != gone} | set(grandparents)))
