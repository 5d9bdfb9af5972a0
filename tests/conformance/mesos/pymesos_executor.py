"""A custom executor on pymesos, nothing of which is changed.

It runs nothing itself: a task is RUNNING until it is killed, or until a message names it with a state. Other messages
come back in capitals. A task's data comes back with its first update.
"""

import sys

from pymesos import Executor, MesosExecutorDriver, decode_data, encode_data


class Told(Executor):
    def __init__(self):
        self.tasks = {}

    def registered(self, driver, executor_info, framework_info, agent_info):
        print("registered", executor_info["executor_id"]["value"], framework_info["name"], agent_info["hostname"])

    def reregistered(self, driver, agent_info):
        print("reregistered", agent_info["hostname"])

    def launchTask(self, driver, task):
        self.tasks[task["task_id"]["value"]] = task
        self.tell(driver, task["task_id"]["value"], "TASK_RUNNING", data=task.get("data", ""))

    def killTask(self, driver, task_id):
        self.tell(driver, task_id["value"], "TASK_KILLED")

    def frameworkMessage(self, driver, message):
        text = decode_data(message).decode()
        name, _, state = text.partition("=")
        if name in self.tasks:
            self.tell(driver, name, state)
        elif text == "leave":
            driver.stop()
        else:
            driver.sendFrameworkMessage(encode_data(text.upper().encode()))

    def shutdown(self, driver):
        print("shut down")

    def error(self, driver, message):
        print("error", message)

    @staticmethod
    def tell(driver, task_id, state, **fields):
        driver.sendStatusUpdate({"task_id": {"value": task_id}, "state": state, **fields})


def main():
    driver = MesosExecutorDriver(Told())
    driver.run()
    return 3 if len(sys.argv) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
