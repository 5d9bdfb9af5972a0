"""What roles held before, decayed by half in a time of their own: it counts for their share where it is more than now.

A role that used much lately stays behind its siblings for a while, even when it holds nothing any more. Source: fair
share of batch schedulers, as in Slurm.
"""

from corral.allocator.engine import Engine

STEPS = 64
"""How many times within a half-life what was held is averaged anew."""


class History:
    """Shapes: roles without a half-life have no history."""

    def __init__(self) -> None:
        self._half_life_s: dict[str, float] = {}
        self._since_at: dict[str, float] = {}
        self._past: dict[str, list[float]] = {}

    def set(self, role: str, half_life_s: float | None) -> None:
        """Let a role have a history, or with None none any more."""
        if half_life_s is None:
            if self._half_life_s.pop(role, None) is not None:
                self._past[role] = []
        else:
            self._half_life_s[role] = half_life_s

    def catch_up(self, engine: Engine, now: float) -> None:
        """Average over the time that has passed: what was held since counts by how long it was."""
        for role in [each for each in self._past if each not in self._half_life_s]:
            del self._past[role]
            self._since_at.pop(role, None)
            engine.set_past(engine.role(role), [0] * len(engine.resources))
        for role, half_life_s in self._half_life_s.items():
            row = engine.role(role)
            held = [float(engine.held(row)[name]) for name in engine.resources]
            past = self._past.get(role)
            if past is None:
                self._past[role], self._since_at[role] = [0.0] * len(held), now
                continue
            passed = now - self._since_at[role]
            if passed < half_life_s / STEPS:
                continue
            kept = 0.5 ** (passed / half_life_s)
            past = [*past, *[0.0] * (len(held) - len(past))]
            self._past[role] = [kept * before + (1 - kept) * here for before, here in zip(past, held, strict=True)]
            self._since_at[role] = now
            engine.set_past(row, [int(each) for each in self._past[role]])
