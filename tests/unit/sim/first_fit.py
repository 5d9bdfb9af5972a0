"""An allocator of a few lines, to test what drives it: every want in order, on the first agent that has room."""

from hashlib import blake2b

from corral.allocator.view import AgentView, Allocation, Eviction, FrameworkView, Grant, Hold, Settings, View, WantView
from corral.model.constraints import allows, field_value
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.resources import Resources, add, contains, subtract, total_milli
from corral.model.role import RoleSettings


class FirstFit:
    def __init__(self) -> None:
        self.agents: dict[AgentId, AgentView] = {}
        self.free: dict[AgentId, Resources] = {}
        self.wants: dict[tuple[FrameworkId, WantId], WantView] = {}
        self.holds: dict[str, Hold] = {}
        self.roles: dict[str, RoleSettings] = {}
        self.evict_next: list[str] = []
        self.seeds: list[int] = []
        self._hash = blake2b(digest_size=8)
        self._grants = 0

    def set_agent(self, view: AgentView) -> None:
        self.agents[view.id] = view
        held = [hold.resources for hold in self.holds.values() if hold.agent_id == view.id]
        self.free[view.id] = subtract(view.total, add(*held))

    def remove_agent(self, agent_id: AgentId) -> None:
        del self.agents[agent_id], self.free[agent_id]

    def set_settings(self, settings: Settings) -> None:
        pass

    def set_role(self, name: str, role: RoleSettings) -> None:
        self.roles[name] = role

    def remove_role(self, name: str) -> None:
        self.roles.pop(name, None)

    def set_framework(self, view: FrameworkView) -> None: ...

    def set_want(self, view: WantView) -> None:
        self.wants[view.framework_id, view.want.id] = view

    def remove_want(self, framework_id: FrameworkId, want_id: WantId) -> None:
        del self.wants[framework_id, want_id]

    def hold(self, hold: Hold, instead_of: str | None = None) -> None:
        if instead_of is not None:
            self.release(instead_of)
        self.holds[hold.key] = hold
        self.free[hold.agent_id] = subtract(self.free[hold.agent_id], hold.resources)

    def release(self, key: str) -> None:
        hold = self.holds.pop(key)
        self.free[hold.agent_id] = add(self.free[hold.agent_id], hold.resources)

    def run(self, now: float, seed: int = 0, most: int = 0) -> Allocation:
        self.seeds.append(seed)
        grants: list[Grant] = []
        evictions = tuple(self._eviction(key) for key in self.evict_next)
        self.evict_next = []
        waiting = []
        for view in self.wants.values():
            for left in range(view.missing, 0, -1):
                agent_id = next((a for a in self.agents if self._fits(a, view)), None)
                if agent_id is None:
                    waiting.append((view.framework_id, view.want.id))
                    break
                grants.append(self._grant(view, agent_id))
                self.wants[view.framework_id, view.want.id] = _with_missing(view, left - 1)
        return Allocation(grants=tuple(grants), evictions=evictions, waiting=tuple(waiting))

    def view(self) -> View:
        return View(agents=(), holds=tuple(self.holds.values()))

    def decision_hash(self) -> str:
        return self._hash.hexdigest()

    def invariants(self) -> None: ...

    def _gpus(self, agent_id: AgentId, resources: Resources) -> tuple[int, ...] | None:
        """The first GPUs that have it; None when there are none."""
        asked = total_milli(resources, "gpus")
        free = [1000] * (total_milli(self.agents[agent_id].total, "gpus") // 1000)
        for hold in self.holds.values() if asked else ():
            for device in hold.devices if hold.agent_id == agent_id else ():
                free[device] -= total_milli(hold.resources, "gpus") // len(hold.devices)
        count = max(1, asked // 1000) if asked else 0
        found = [number for number, left in enumerate(free) if left >= min(asked, 1000)][:count]
        return tuple(found) if len(found) == count else None

    def _fits(self, agent_id: AgentId, view: WantView) -> bool:
        agent = self.agents[agent_id]
        return (
            not agent.ineligible
            and self._gpus(agent_id, view.want.resources) is not None
            and contains(self.free[agent_id], view.want.resources)
            and all(
                allows(c, field_value(c.field, agent.hostname, agent.attributes), (), 0, 0)
                for c in view.want.constraints
            )
        )

    def _grant(self, view: WantView, agent_id: AgentId) -> Grant:
        self._grants += 1
        key = f"grant/{self._grants}"
        devices = self._gpus(agent_id, view.want.resources) or ()
        self._hash.update(f"{view.want.id}>{agent_id};".encode())
        self.hold(
            Hold(
                key=key,
                framework_id=view.framework_id,
                role=view.want.role,
                agent_id=agent_id,
                resources=view.want.resources,
                devices=devices,
            )
        )
        return Grant(
            key=key,
            framework_id=view.framework_id,
            role=view.want.role,
            agent_id=agent_id,
            resources=view.want.resources,
            want_id=view.want.id,
            devices=devices,
        )

    def _eviction(self, key: str) -> Eviction:
        hold = self.holds[key]
        return Eviction(
            key=key,
            framework_id=hold.framework_id,
            role=hold.role,
            agent_id=hold.agent_id,
            want_id=hold.want_id or WantId(""),
            for_framework_id=hold.framework_id,
            for_role=hold.role,
            why="told to",
        )


def _with_missing(view: WantView, missing: int) -> WantView:
    return WantView(want=view.want, framework_id=view.framework_id, missing=missing, since_at=view.since_at)
