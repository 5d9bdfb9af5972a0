"""GET_OPERATIONS: what is under way on agents, and what frameworks have not acknowledged."""

import base64
import json
from typing import Any

from master_stage import Agent, Stage
from test_reserve_master import finish, operate, reserved, with_disk

from corral.master.spec import GetCluster
from corral.mesos.operator import OperatorCall, write_response
from corral.model import calls, events
from corral.model.operations import Reserve
from corral.model.operator import Operate
from corral.model.orders import ApplyOperation, OperationDone


def listed(stage: Stage) -> list[dict[str, Any]]:
    snapshot = stage.ask(GetCluster(tasks=False, agents=False, roles=False))
    answer = json.loads(write_response(OperatorCall.GET_OPERATIONS, snapshot, "1.11.0"))
    found: list[dict[str, Any]] = answer["get_operations"].get("operations", [])
    return found


def reserve(operation_id: str | None = "op") -> Reserve:
    return Reserve(resources=(reserved("cpus", 1),), operation_id=operation_id)


def uuid_of(agent: Agent) -> bytes:
    (order,) = agent.take(ApplyOperation)
    return order.uuid


def test_an_operation_is_pending_until_its_agent_has_answered() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    operate(framework, framework.offers(), reserve())
    uuid = uuid_of(agent)
    (found,) = listed(stage)
    assert found["framework_id"] == {"value": framework.id}
    assert found["agent_id"] == {"value": agent.id}
    assert found["uuid"] == {"value": base64.b64encode(uuid).decode()}
    assert (found["info"]["type"], found["info"]["id"]) == ("RESERVE", {"value": "op"})
    (resource,) = found["info"]["reserve"]["resources"]
    assert (resource["name"], resource["reservations"][0]["role"]) == ("cpus", "web")
    assert found["latest_status"] == {
        "state": "OPERATION_PENDING", "operation_id": {"value": "op"}, "agent_id": {"value": agent.id}
    }  # fmt: skip
    assert "statuses" not in found
    agent.report(OperationDone(uuid))
    (found,) = listed(stage)
    assert found["uuid"] == {"value": base64.b64encode(uuid).decode()}
    assert found["latest_status"]["state"] == "OPERATION_FINISHED"
    assert found["statuses"] == [found["latest_status"]]


def test_what_its_framework_has_acknowledged_is_listed_no_more() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    operate(framework, framework.offers(), reserve())
    finish(agent)
    (told,) = framework.take(events.UpdateOperation)
    call = calls.AcknowledgeOperation(framework_id=framework.id, operation_id="op", uuid=told.status.uuid)
    framework.call(call)
    assert listed(stage) == []


def test_an_operation_without_an_id_is_listed_while_it_is_under_way() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    operate(framework, framework.offers(), reserve(None))
    (found,) = listed(stage)
    assert "id" not in found["info"]
    assert found["latest_status"] == {"state": "OPERATION_PENDING", "agent_id": {"value": agent.id}}
    finish(agent)
    assert listed(stage) == []


def test_an_operators_operation_has_no_framework() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    stage.ask_later(Operate(agent_id=agent.id, operation=reserve(None)))
    (found,) = listed(stage)
    assert "framework_id" not in found
    finish(agent)
    assert listed(stage) == []


def test_an_operation_that_was_never_ordered_is_listed_with_its_end() -> None:
    stage = Stage()
    agent = stage.agent(with_disk())
    framework = stage.framework(role="web")
    operate(framework, framework.offers(), Reserve(resources=(reserved("cpus", 100),), operation_id="much"))
    assert agent.take(ApplyOperation) == []
    (found,) = listed(stage)
    assert (found["info"]["id"], found["latest_status"]["state"]) == ({"value": "much"}, "OPERATION_ERROR")
    assert found["uuid"] == found["latest_status"]["uuid"]
