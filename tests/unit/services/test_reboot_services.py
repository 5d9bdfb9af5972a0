"""Apps are services: their tasks are started again after a boot of the node, unless the app says otherwise."""

import pytest

from corral.lib.errors import Unprocessable
from corral.model.boot import AFTER_REBOOT_LABEL, starts_after_reboot
from corral.model.task import Reason, TaskState


def test_an_apps_tasks_are_started_again_after_a_boot(cluster) -> None:
    cluster.create()
    (task_id,) = cluster.run()
    assert starts_after_reboot(cluster.tasks[task_id])


def test_an_app_may_leave_its_tasks_ended(cluster) -> None:
    cluster.create(labels={AFTER_REBOOT_LABEL: "leave"})
    (task_id,) = cluster.run()
    assert not starts_after_reboot(cluster.tasks[task_id])


def test_an_app_whose_label_says_something_else_is_refused(cluster) -> None:
    with pytest.raises(Unprocessable) as refused:
        cluster.create(labels={AFTER_REBOOT_LABEL: "maybe"})
    assert refused.value.details == {
        "/labels/corral.after-reboot": ["label corral.after-reboot is 'maybe'; it may be start or leave"]
    }


def test_an_instance_that_its_agent_starts_again_is_not_replaced_and_shown_as_starting(cluster) -> None:
    cluster.create()
    (task_id,) = cluster.run()
    cluster.update(task_id, TaskState.STARTING, reason=Reason.AGENT_RESTARTED)
    (instance,) = cluster.app().instances.values()
    assert instance.condition == "Starting"
    cluster.update(task_id, TaskState.RUNNING)
    (instance,) = cluster.app().instances.values()
    assert instance.condition == "Running"
    assert cluster.task_ids() == [task_id]
