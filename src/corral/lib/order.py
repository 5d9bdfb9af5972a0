"""Things that wait for one another, by name: what follows what, and in which order all may go."""

from collections.abc import Collection, Iterable, Mapping


def turn(waits: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """What waits for each. Shapes: `waits` has for each what it waits for itself; nothing follows what is left out."""
    followers: dict[str, list[str]] = {}
    for name, others in waits.items():
        for other in others:
            followers.setdefault(other, []).append(name)
    return followers


def find_waves(waits: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Those that wait for nothing, those that wait for nothing else, and so on; what goes in circles, or comes after a
    circle or something unknown, is left out."""
    followers = turn(waits)
    counts = {name: len(others) for name, others in waits.items()}
    wave = [name for name, count in counts.items() if not count]
    waves = []
    while wave:
        waves.append(wave)
        coming = []
        for name in wave:
            for follower in followers.get(name, ()):
                counts[follower] -= 1
                if not counts[follower]:
                    coming.append(follower)
        wave = coming
    return waves


def peel(waits: Mapping[str, Collection[str]]) -> list[str]:
    """The waves, one after the other."""
    return [name for wave in find_waves(waits) for name in wave]
