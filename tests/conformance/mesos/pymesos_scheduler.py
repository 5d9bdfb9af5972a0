"""A scheduler on pymesos, run as a process of its own: takes commands as JSON lines, tells what it is told likewise.

Usage: pymesos_scheduler.py HOST:PORT FRAMEWORK_INFO_AS_JSON
A command is `[method, argument, ...]` of pymesos' driver, such as `["killTask", {"value": "t1"}]`; `["stop", failover]`
ends it well, `["operator", method, ...]` asks its operator client, `["agent", HOST:PORT, method, ...]` its client for
agents; after `["follow"]` the cluster's events are told as "followed". An event is `{"event": callback, ...}`; a method
that raises gives `{"event": "raised", ...}`. After an error, or when standard input ends, the process leaves without a
word to the master.
"""

import json
import os
import sys
import threading

from pymesos import (
    MesosOperatorAgentDriver,
    MesosOperatorMasterDriver,
    MesosSchedulerDriver,
    OperatorMaster,
    Scheduler,
)

_lock = threading.Lock()


def tell(event, **facts):
    with _lock:
        print(json.dumps({"event": event, **facts}), flush=True)


class Told(Scheduler):
    """Says every callback on standard output."""

    def registered(self, driver, framework_id, master_info):
        tell("registered", framework_id=framework_id, master=master_info, version=driver.version)

    def reregistered(self, driver, master_info):
        tell("reregistered", master=master_info)

    def disconnected(self, driver):
        tell("disconnected")

    def resourceOffers(self, driver, offers):
        tell("offers", offers=offers)

    def offerRescinded(self, driver, offer_id):
        tell("rescinded", offer_id=offer_id)

    def statusUpdate(self, driver, update):
        tell("update", status=update)

    def slaveLost(self, driver, agent_id):
        tell("lost", agent_id=agent_id)

    def error(self, driver, message):
        tell("error", message=message)
        os._exit(0)

    def processHeartBeat(self, driver):
        tell("heartbeat")


def read_as_operator(master, method, *arguments):
    """One read through pymesos' operator client."""
    driver = MesosOperatorMasterDriver(master, OperatorMaster())
    tell("answered", method=method, answer=getattr(driver, method)(*arguments))


def read_as_operator_of_agent(agent, method, *arguments):
    tell("answered", method=method, answer=getattr(MesosOperatorAgentDriver(agent), method)(*arguments))


class Following(OperatorMaster):
    """Says every callback on standard output."""

    def taskAdded(self, task_info):
        tell("followed", call="taskAdded", about=task_info)

    def taskUpdated(self, task_info):
        tell("followed", call="taskUpdated", about=task_info)

    def frameworkAdded(self, framework_info):
        tell("followed", call="frameworkAdded", about=framework_info)

    def frameworkUpdated(self, framework_info):
        tell("followed", call="frameworkUpdated", about=framework_info)

    def frameworkRemoved(self, framework_info):
        tell("followed", call="frameworkRemoved", about=framework_info)

    def agentAdded(self, agent_info):
        tell("followed", call="agentAdded", about=agent_info)

    def agentRemoved(self, agent_id):
        tell("followed", call="agentRemoved", about=agent_id)


class Followed(MesosOperatorMasterDriver):
    """Says also when it is there."""

    def on_subscribed(self, info):
        super().on_subscribed(info)
        tell("followed", call="subscribed", about=info)


def main():
    master, info = sys.argv[1], json.loads(sys.argv[2])
    driver = MesosSchedulerDriver(Told(), info, master)
    driver.start()
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            if method == "stop":
                driver.stop(*arguments)
                driver.join()
                tell("stopped")
                return
            if method == "operator":
                read_as_operator(master, *arguments)
            elif method == "agent":
                read_as_operator_of_agent(*arguments)
            elif method == "follow":
                Followed(master, Following()).start()
            else:
                getattr(driver, method)(*arguments)
                tell("called", method=method)
        except Exception as error:
            tell("raised", method=method, message=str(error))
    os._exit(0)


if __name__ == "__main__":
    main()
