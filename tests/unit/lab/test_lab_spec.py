"""Which cuts a lab has, and what the switch is told of them."""

import pytest

from corral.lab.cgroups import Tree, read_trees
from corral.lab.spec import (
    LabSpec,
    check_name,
    check_net,
    cut,
    describe_cuts,
    filter_text,
    heal,
    host_index,
    host_ip,
    host_mac,
    hosts_text,
    read_hosts,
)
from corral.lib.errors import Invalid, NotFound

LAB = LabSpec(name="lab", net="10.77.0.0/24")
KNOWN = ("h1", "h2", "h3")


def rules(lab: LabSpec) -> list[str]:
    return [line.removeprefix("-A FORWARD ") for line in filter_text(lab).splitlines() if line.startswith("-A")]


def test_a_host_that_is_cut_off_has_its_plug_pulled() -> None:
    lab = cut(LAB, ["h1"], [], silent=False, one_way=False)
    assert (lab.unplugged, rules(lab)) == (("h1",), [])
    assert describe_cuts(lab, "h1") == ["unplugged"]


def test_a_silent_cut_drops_all_frames_of_the_host_and_keeps_its_plug() -> None:
    lab = cut(LAB, ["h1"], [], silent=True, one_way=False)
    assert lab.unplugged == ()
    assert rules(lab) == ["-i p-h1 -j DROP", "-o p-h1 -j DROP"]
    assert describe_cuts(lab, "h1") == ["all"]


def test_groups_are_cut_from_each_other_and_not_within() -> None:
    lab = cut(LAB, ["h1", "h2"], ["h3", "here"], silent=False, one_way=False)
    assert len(rules(lab)) == 8
    assert "-i p-h1 -o p-h2 -j DROP" not in rules(lab)
    assert describe_cuts(lab, "h3") == ["h1", "h2"]
    assert describe_cuts(lab, "h1") == ["h3", "here"]


def test_a_cut_of_one_direction_is_told_at_both_ends() -> None:
    lab = cut(LAB, ["h1"], ["h2"], silent=True, one_way=True)
    assert rules(lab) == ["-i p-h1 -o p-h2 -j DROP"]
    assert (describe_cuts(lab, "h1"), describe_cuts(lab, "h2")) == (["to h2"], ["from h1"])


def test_the_same_cut_twice_is_one() -> None:
    once = cut(LAB, ["h1"], ["h2"], silent=False, one_way=False)
    assert cut(once, ["h2"], ["h1"], silent=False, one_way=False).blocked == once.blocked


@pytest.mark.parametrize(
    ("hosts", "peers", "left"),
    [
        (["h1"], [], (("h2", "h3"), ("h3", "h2"))),
        (["h3"], ["h2"], (("h1", "h2"), ("h2", "h1"))),
        ([], [], ()),
        (["h1"], ["h3"], (("h1", "h2"), ("h2", "h1"), ("h2", "h3"), ("h3", "h2"))),
    ],
)
def test_heal_undoes_what_is_named_from_either_end(
    hosts: list[str], peers: list[str], left: tuple[tuple[str, str], ...]
) -> None:
    lab = cut(cut(LAB, ["h1"], ["h2"], silent=False, one_way=False), ["h2"], ["h3"], silent=False, one_way=False)
    assert heal(lab, hosts, peers).blocked == left


def test_heal_of_a_pair_leaves_the_plug_and_heal_of_the_host_puts_it_in() -> None:
    lab = cut(LAB, ["h1"], [], silent=False, one_way=False)
    assert heal(lab, ["h1"], ["h2"]).unplugged == ("h1",)
    assert heal(lab, ["h1"], []).unplugged == ()


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(Invalid, match="h1 cannot be cut from itself"):
        cut(LAB, ["h1", "h2"], ["h1"], silent=False, one_way=False)
    with pytest.raises(Invalid, match="name the peers"):
        cut(LAB, ["h1"], [], silent=False, one_way=True)


def test_hosts_are_read_from_a_list_and_unknown_ones_are_named() -> None:
    assert read_hosts("h1, h3", KNOWN) == ("h1", "h3")
    assert read_hosts("here", KNOWN, here=True) == ("here",)
    with pytest.raises(NotFound, match="no host 'h4' in this lab; it has h1, h2, h3"):
        read_hosts("h1,h4", KNOWN)
    with pytest.raises(NotFound, match="'here'"):
        read_hosts("here", KNOWN)
    with pytest.raises(Invalid, match="no host is named"):
        read_hosts(" , ", KNOWN)


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "a-b", "averylongname", "../x"])
def test_a_name_that_cannot_be_part_of_a_links_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="1 to 10 letters and digits"):
        check_name(name)


def test_a_network_must_be_one_and_large_enough() -> None:
    assert check_net("10.1.2.0/24") == "10.1.2.0/24"
    with pytest.raises(Invalid, match="is no network"):
        check_net("10.1.2.3/24")
    with pytest.raises(Invalid, match="too small"):
        check_net("10.1.2.0/25")


def test_addresses_follow_from_the_number() -> None:
    assert (host_ip("10.77.4.0/24", 3), host_mac(3)) == ("10.77.4.13", "02:c0:00:00:00:0d")
    assert [host_index(name) for name in ("h12", "h0", "x1", "here")] == [12, None, None, None]
    assert hosts_text(LAB, [2, 1], "box").splitlines()[1:] == ["10.77.0.1 here box", "10.77.0.11 h1", "10.77.0.12 h2"]


def test_each_cgroup_hierarchy_is_found_once() -> None:
    text = (
        "29 23 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
        "30 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "31 23 0:26 / /elsewhere/memory rw shared:1 - cgroup cgroup rw,memory\n"
        "32 23 0:99 / /tmp rw - tmpfs tmpfs rw\n"
    )
    found = read_trees(text)
    assert [(str(tree.mount), tree.version) for tree in found] == [
        ("/sys/fs/cgroup/memory", 1),
        ("/sys/fs/cgroup/unified", 2),
    ]
    assert found[0] == Tree(1, found[0].mount, frozenset({"rw", "memory"}))
