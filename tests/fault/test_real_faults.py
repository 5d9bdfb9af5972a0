"""A real cluster in a lab is hurt, and nothing is lost: a short slice here, the whole table by `make fault`."""

import shutil

import pytest
from lab_hosts import leftovers, make_lab
from tests.fault.real.faults import FAULTS
from tests.fault.real.harness import run, tell

pytestmark = pytest.mark.docker

SLICE = ("master-killed", "dockerd-killed", "host-killed-alone")


@pytest.fixture
def etcd_is_there() -> None:
    assert shutil.which("etcd"), "etcd not found; run: apt-get install etcd-server"


def hurt(*names: str, hosts: int, masters: int, members: int) -> None:
    lab = make_lab("f")
    said: list[str] = []
    found = run(lab, names, hosts=hosts, masters=masters, members=members, say=said.append)
    by_key = {fault.key: fault for fault in FAULTS}
    assert [tell(by_key[one.key], one) for one in found if one.lost] == [], "\n".join(said)
    assert [one.key for one in found] == [fault.key for fault in FAULTS if not names or fault.key in names]
    assert leftovers(lab.name) == []


@pytest.mark.timeout(240)
def test_two_hosts_lose_nothing_by_the_commonest_faults(private_engine: object) -> None:
    hurt(*SLICE, hosts=2, masters=1, members=0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_hosts_lose_nothing_by_any_fault(private_engine: object, etcd_is_there: None) -> None:
    hurt(hosts=3, masters=3, members=3)
