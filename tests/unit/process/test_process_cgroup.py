"""Where tasks' cgroups go and what is written into them, for every way in which Linux mounts them."""

from hypothesis import given
from hypothesis import strategies as st

from corral.process.cgroup import Hierarchy, Limits, choose_parent, limit_files, read_hierarchies

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V1_MEMBER = """\
9:name=systemd:/system.slice/corral-agent.service
4:memory:/system.slice/corral-agent.service
3:cpuset:/
1:cpu,cpuacct:/system.slice/corral-agent.service
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_each_tree_that_limits_or_tracks_is_found_once() -> None:
    found = read_hierarchies(V1 + UNIFIED + V1, V1_MEMBER + "0::/init.scope\n")
    assert [(h.version, h.mount, sorted(h.controllers)) for h in found] == [
        (1, "/sys/fs/cgroup/cpu,cpuacct", ["cpu", "cpuacct"]),
        (1, "/sys/fs/cgroup/memory", ["memory"]),
        (1, "/sys/fs/cgroup/systemd", ["name=systemd"]),
        (2, "/sys/fs/cgroup/unified", []),
    ]
    assert found[1].own == "/sys/fs/cgroup/memory/system.slice/corral-agent.service"


def test_version_two_is_one_tree() -> None:
    (found,) = read_hierarchies(V2, "0::/user.slice/user-1000.slice/session-2.scope\n")
    assert (found.version, found.own) == (2, "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope")


def test_a_machine_without_cgroups_has_no_trees() -> None:
    assert read_hierarchies("22 1 8:1 / / rw - ext4 /dev/vda rw\n", "") == []


def test_a_mount_that_shows_only_a_part_of_the_tree_is_read_from_there() -> None:
    mounts = "30 23 0:26 /docker/ab /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    (found,) = read_hierarchies(mounts, "0::/docker/ab/inner\n")
    assert found.own == "/sys/fs/cgroup/inner"


def test_a_mount_point_with_a_space_is_understood() -> None:
    (found,) = read_hierarchies("30 23 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup rw\n", "0::/\n")
    assert found.mount == "/mnt/my groups"


def test_tasks_live_beside_the_units_of_systemd() -> None:
    for own in ("/system.slice/corral-agent.service", "/user.slice/user-0.slice/session-1.scope", "/init.scope", "/"):
        tree = Hierarchy(2, "/sys/fs/cgroup", f"/sys/fs/cgroup{own}".rstrip("/"))
        assert choose_parent(tree, None) == "/sys/fs/cgroup/corral"


def test_elsewhere_tasks_live_below_the_agent() -> None:
    tree = Hierarchy(1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/job/7")
    assert choose_parent(tree, None) == "/sys/fs/cgroup/memory/job/7/corral"


def test_a_wanted_parent_is_taken_in_every_tree() -> None:
    tree = Hierarchy(1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/job/7")
    assert choose_parent(tree, "/nodes/n1/") == "/sys/fs/cgroup/memory/nodes/n1"


def test_version_one_writes_shares_quota_and_limit() -> None:
    limits = Limits(cpu_milli=500, cpu_limit_milli=1500, mem_mb=64)
    assert limit_files(1, {"cpu", "cpuacct"}, limits) == [
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
    ]
    assert limit_files(1, {"memory"}, limits) == [
        ("memory.limit_in_bytes", str(64 << 20)),
        ("?memory.memsw.limit_in_bytes", str(64 << 20)),
    ]


def test_version_two_writes_weight_max_and_no_swap() -> None:
    assert limit_files(2, {"cpu", "memory"}, Limits(cpu_milli=1000, cpu_limit_milli=500, mem_mb=64)) == [
        ("cpu.weight", "39"),
        ("cpu.max", "50000 100000"),
        ("memory.max", str(64 << 20)),
        ("?memory.swap.max", "0"),
        ("?memory.oom.group", "1"),
    ]


def test_nothing_asked_or_nothing_there_writes_nothing() -> None:
    assert limit_files(1, {"cpu", "memory"}, Limits()) == []
    assert limit_files(2, set(), Limits(cpu_milli=1000, cpu_limit_milli=500, mem_mb=64)) == []


@given(milli=st.integers(1, 10**9), version=st.sampled_from([1, 2]))
def test_every_weight_is_one_that_the_kernel_takes(milli: int, version: int) -> None:
    ((_, value),) = limit_files(version, {"cpu"}, Limits(cpu_milli=milli))
    low, high = (2, 262144) if version == 1 else (1, 10000)
    assert low <= int(value) <= high


@given(one=st.integers(1, 10**7), other=st.integers(1, 10**7))
def test_who_asks_for_more_never_weighs_less(one: int, other: int) -> None:
    weights = [int(limit_files(2, {"cpu"}, Limits(cpu_milli=m))[0][1]) for m in sorted((one, other))]
    assert weights == sorted(weights)
