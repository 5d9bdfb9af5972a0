"""Marathon's events: which ones an input leads to, how they look, and that none is made while nobody listens."""

import pytest
from marathon.models.events import EventFactory

from corral.frameworks.services.command_spec import (
    AppUpdate,
    CancelDeployment,
    CreateApp,
    DeleteApp,
    GetApps,
    KillTasks,
    RestartApp,
    UpdateApps,
)
from corral.frameworks.services.events import (
    ONLY_WHEN_NAMED,
    accepts,
    is_wanted,
    read_kinds,
    write_comment,
    write_frame,
)
from corral.frameworks.services.marathon import read_app, read_update
from corral.lib.errors import Conflict, NotFound, Unprocessable
from corral.model import events
from corral.model.ids import AgentId, ExecutorId
from corral.model.task import TaskState
from corral.sdk.feed import Followed


@pytest.fixture
def heard(cluster):
    cluster.listen()
    yield cluster
    for event in cluster.published:
        if event["eventType"] not in ONLY_WHEN_NAMED:
            # What is sent unasked has to be one that the PyPI client can read.
            EventFactory().process(dict(event))


def kinds(found) -> list[str]:
    return [e["eventType"] for e in found]


def test_nothing_is_published_while_nobody_listens(cluster) -> None:
    cluster.create(instances=2)
    cluster.run()
    cluster.ask(DeleteApp(id="/web"))
    cluster.work()
    assert cluster.published == []
    assert cluster.state.heard is None


def test_publishing_ends_when_the_last_listener_has_gone(heard) -> None:
    heard.create()
    assert heard.heard()
    heard.send(Followed(False))
    heard.work()
    assert heard.published == []


def test_a_new_app_is_told_from_its_creation_to_the_end_of_its_deployment(heard) -> None:
    body = {"id": "/web", "cmd": "sleep 1", "labels": {"a": "b"}}
    result, _ = heard.ask(CreateApp(spec=read_app(body).spec, client="10.0.0.9", uri="/v2/apps"))
    heard.work()
    found = heard.heard()
    assert kinds(found) == [
        "group_change_success", "deployment_info", "api_post_event", "deployment_step_success", "deployment_info",
        "instance_changed_event", "instance_changed_event", "status_update_event", "instance_changed_event",
        "deployment_step_success", "deployment_success",
    ]  # fmt: skip
    group, info, post, _, scale, scheduled, provisioned, status, running, _, success = found
    assert group == {
        "eventType": "group_change_success", "timestamp": group["timestamp"], "groupId": "/", "version": result.version
    }  # fmt: skip
    assert info["plan"]["id"] == result.deployment_id
    assert info["currentStep"] == {"actions": [{"action": "StartApplication", "app": "/web"}]}
    assert scale["currentStep"] == {"actions": [{"action": "ScaleApplication", "app": "/web"}]}
    assert set(info["plan"]) == {"id", "version", "original", "target", "steps"}
    assert set(info["plan"]["target"]) == {"id", "version", "apps", "groups", "pods", "dependencies"}
    assert (post["clientIp"], post["uri"]) == ("10.0.0.9", "/v2/apps")
    assert post["appDefinition"]["labels"] == {"a": "b"}
    assert [e["condition"] for e in (scheduled, provisioned, running)] == ["Scheduled", "Provisioned", "Running"]
    assert "agentId" not in scheduled
    (instance,) = heard.running()
    assert status == {
        "eventType": "status_update_event",
        "timestamp": status["timestamp"],
        "slaveId": instance.agent_id,
        "taskId": f"{instance.id}._app.1",
        "taskStatus": "TASK_RUNNING",
        "message": "",
        "appId": "/web",
        "host": instance.hostname,
        "ipAddresses": [],
        "ports": list(instance.ports),
        "version": instance.version,
    }
    assert success["id"] == result.deployment_id


def test_a_failed_task_is_told_with_its_words_and_its_instance_is_scheduled_anew(heard) -> None:
    heard.create()
    (task,) = heard.run()
    heard.heard()
    heard.update(task, TaskState.FAILED, message="Command exited with status 3")
    status, failed, again = heard.heard()
    assert (status["taskStatus"], status["message"]) == ("TASK_FAILED", "Command exited with status 3")
    assert (failed["condition"], again["condition"]) == ("Failed", "Scheduled")
    assert failed["instanceId"] == again["instanceId"] == task.removesuffix("._app.1")


def test_the_same_word_twice_is_one_event(heard) -> None:
    heard.create()
    (task,) = heard.run()
    heard.heard()
    heard.update(task, TaskState.RUNNING)
    assert heard.heard() == []


def test_a_deleted_app_is_told_to_have_gone_once_its_tasks_have(heard) -> None:
    heard.create()
    heard.run()
    heard.ask(DeleteApp(id="/web"))
    heard.settle()
    assert heard.heard("app_terminated_event") == []
    heard.bury()
    found = heard.heard()
    assert kinds(found)[:2] == ["status_update_event", "instance_changed_event"]
    assert found[1]["condition"] == "Killed"
    assert "app_terminated_event" in kinds(found)
    assert "deployment_success" in kinds(found)


def test_a_cancelled_deployment_has_failed_with_the_reason(heard) -> None:
    result = heard.create()
    heard.heard()
    heard.ask(CancelDeployment(id=result.deployment_id, force=True))
    (failed,) = heard.heard("deployment_failed")
    assert failed["id"] == result.deployment_id
    assert failed["reason"] == "somebody cancelled it by force"


@pytest.mark.parametrize(
    ("command", "error", "group"),
    [
        (CreateApp(spec=read_app({"id": "/a/web", "cmd": "sleep 1", "cpus": -1}).spec), Unprocessable, "/a"),
        (RestartApp(id="/busy"), Conflict, "/"),
        (
            UpdateApps(
                updates=(AppUpdate(id="/busy", spec=read_update({"instances": 9}, "/busy").spec, given=("instances",)),)
            ),
            Conflict,
            "/",
        ),
    ],
)
def test_a_refused_change_is_told_too(heard, command, error, group) -> None:
    heard.create(id="/busy")
    heard.heard()
    with pytest.raises(error) as refused:
        heard.ask(command)
    (failed,) = heard.heard()
    assert failed["eventType"] == "group_change_failed"
    assert (failed["groupId"], failed["reason"]) == (group, refused.value.message)


def test_a_refused_question_and_an_unknown_app_are_no_events(heard) -> None:
    with pytest.raises(NotFound):
        heard.ask(DeleteApp(id="/nobody"))
    with pytest.raises(Unprocessable):
        heard.ask(GetApps(label="a in ("))
    assert heard.heard() == []


def test_a_kill_is_told_when_it_has_come_to_pass(heard) -> None:
    heard.create()
    heard.run()
    heard.heard()
    heard.ask(KillTasks(app="/web"))
    heard.settle()
    assert "status_update_event" not in kinds(heard.heard())
    heard.bury()
    assert [e["taskStatus"] for e in heard.heard("status_update_event")] == ["TASK_KILLED"]


def test_a_silent_agent_and_its_return_are_told(heard) -> None:
    heard.create(unreachableStrategy={"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120})
    (task,) = heard.run()
    heard.heard()
    heard.update(task, TaskState.UNREACHABLE)
    status, instance = heard.heard()
    assert status["taskStatus"] == "TASK_UNREACHABLE"
    assert instance["condition"] == "Unreachable"
    heard.advance(61)
    assert [e["condition"] for e in heard.heard("instance_changed_event")] == ["UnreachableInactive", "Scheduled"]
    heard.advance(60)
    assert [e["condition"] for e in heard.heard("instance_changed_event")] == ["Gone"]


def test_the_end_of_a_task_that_nobody_knows_is_told(heard) -> None:
    heard.update("web.instance-1b4e28ba-2fa1-11d2-883f-0016d3cca427._app.1", TaskState.KILLED)
    (event,) = heard.heard()
    assert event["eventType"] == "unknown_instance_terminated_event"
    assert event["instanceId"] == "web.instance-1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    assert (event["runSpecId"], event["condition"]) == ("/web", "Killed")


def test_the_ways_of_the_master_are_told_to_those_who_name_them(heard) -> None:
    heard.disconnect()
    heard.subscribe()
    found = heard.heard()
    assert kinds(found) == ["scheduler_disconnected_event", "scheduler_reregistered_event"]
    assert found[1]["master"] == "master:4680"
    assert not any(is_wanted(kind, ()) for kind in kinds(found))
    assert is_wanted("scheduler_disconnected_event", {"scheduler_disconnected_event"})
    heard.crash()
    heard.listen()
    heard.subscribe()
    (registered,) = heard.heard()
    assert registered["frameworkId"] == "F"


def test_an_executor_s_message_is_told(heard) -> None:
    heard.send(events.Message(agent_id=AgentId("a"), executor_id=ExecutorId("e"), data=b"hi"))
    (event,) = heard.heard()
    assert (event["executorId"], event["slaveId"], event["message"]) == ("e", "a", "hi")


def test_types_are_chosen_by_repetition_or_by_commas() -> None:
    chosen = read_kinds(["api_post_event", "deployment_info, deployment_success", ""])
    assert chosen == {"api_post_event", "deployment_info", "deployment_success"}
    assert is_wanted("deployment_info", chosen)
    assert not is_wanted("status_update_event", chosen)
    assert is_wanted("status_update_event", read_kinds([]))


def test_only_a_request_for_a_stream_of_events_is_one() -> None:
    assert accepts("text/event-stream")
    assert accepts("application/json, Text/Event-Stream;q=0.9")
    assert not accepts("*/*")
    assert not accepts("")


def test_frames_are_those_of_server_sent_events() -> None:
    assert write_frame("e-7", "api_post_event", b'{"a":1}') == b'event: api_post_event\ndata: {"a":1}\nid: e-7\n\n'
    assert write_comment("two\nlines") == b": two lines\n\n"
