"""Where tasks' cgroups go and what is written into them, for every way in which Linux mounts them."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corral.process.cgroup import (
    Hierarchy,
    Limits,
    Trees,
    choose_parent,
    create,
    kill,
    limit_files,
    oom_kills,
    pids_in,
    read_hierarchies,
    remove,
)

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


def fake_tree(root: Path, *files: str) -> str:
    """A directory that looks like a mounted tree, with plain files in the place of the kernel's."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return str(root)


def test_version_two_hands_its_controllers_down_to_the_tasks(tmp_path: Path) -> None:
    control = ("cgroup.subtree_control", "corral/cgroup.subtree_control", "corral/supervisors/cgroup.procs")
    mount = fake_tree(tmp_path, *control)
    # What the kernel would answer; the first letters are what is written over.
    (tmp_path / "corral/cgroup.subtree_control").write_text("......... cpu memory pids")
    trees = Trees(None, [Hierarchy(2, mount, f"{mount}/system.slice/corral.service")])
    assert trees.notes == []
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    assert trees.homes() == [f"{mount}/corral/supervisors"]
    (task,) = trees.of_task("t1", Limits(cpu_milli=1000, mem_mb=64))
    assert task["path"] == f"{mount}/corral/t1"
    assert [name for name, _ in task["files"]] == ["cpu.weight", "memory.max", "?memory.swap.max", "?memory.oom.group"]


def test_what_cannot_be_used_is_said_with_its_reason(tmp_path: Path) -> None:
    trees = Trees(None, [Hierarchy(1, f"{tmp_path}/memory", f"{tmp_path}/memory", frozenset({"memory"}))])
    assert [trees.homes(), trees.of_task("t1", Limits(mem_mb=1))] == [[], []]
    assert "run the agent as root" in trees.notes[0]
    assert any("memory limits of process tasks are not enforced" in note for note in trees.notes)
    assert any("cpu weights" in note for note in trees.notes)


def test_the_tracking_tree_of_systemd_matters_only_inside_of_a_unit(tmp_path: Path) -> None:
    mount = fake_tree(tmp_path, "corral/supervisors/cgroup.procs")
    names = frozenset({"name=systemd"})
    assert Trees(None, [Hierarchy(1, mount, mount, names)]).homes() == []
    inside = Hierarchy(1, mount, f"{mount}/system.slice/corral.service", names)
    assert Trees(None, [inside]).homes() == [f"{mount}/corral/supervisors"]


def test_a_task_is_killed_by_one_write_where_the_kernel_can(tmp_path: Path) -> None:
    mount = fake_tree(tmp_path, "one/cgroup.procs", "two/cgroup.kill", "two/cgroup.procs")
    kill([f"{mount}/one", f"{mount}/two"])
    assert (tmp_path / "two/cgroup.kill").read_text() == "1"


def test_the_kernels_kills_for_memory_are_counted_in_both_versions(tmp_path: Path) -> None:
    fake_tree(tmp_path, "v1/memory.oom_control", "v2/memory.events")
    (tmp_path / "v1/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "v2/memory.events").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n")
    assert [oom_kills([f"{tmp_path}/{name}"]) for name in ("v1", "v2", "none")] == [2, 1, 0]


def test_processes_of_all_trees_are_one_list(tmp_path: Path) -> None:
    fake_tree(tmp_path, "a/cgroup.procs", "b/cgroup.procs")
    (tmp_path / "a/cgroup.procs").write_text("7\n3\n")
    (tmp_path / "b/cgroup.procs").write_text("7\n5\n")
    assert pids_in([f"{tmp_path}/a", f"{tmp_path}/b", f"{tmp_path}/none"]) == [3, 5, 7]


def test_an_optional_limit_that_the_kernel_lacks_is_left_out(tmp_path: Path) -> None:
    fake_tree(tmp_path, "t/memory.max")
    create([{"path": f"{tmp_path}/t", "files": [("memory.max", "1"), ("?memory.swap.max", "0")]}])
    assert (tmp_path / "t/memory.max").read_text() == "1"
    assert not (tmp_path / "t/memory.swap.max").exists()


def test_only_empty_cgroups_are_removed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "child").mkdir(parents=True)
    remove([f"{tmp_path}/empty", f"{tmp_path}/full", f"{tmp_path}/gone"])
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
