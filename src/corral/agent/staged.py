"""What goes through the stages of a run on this agent: tasks, executors and standalone containers alike."""

from corral.agent.spec import STAGES, Event, Stage


class Staged:
    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage = Stage.STAGING

    @property
    def live(self) -> bool:
        return self.stage is not Stage.ENDED

    def move(self, event: Event) -> bool:
        """Take the transition; False when the table has none and nothing has changed."""
        stage = STAGES.get((self.stage, event))
        if stage is None:
            return False
        self.stage = stage
        return True
