"""Which server is in which slot of HAProxy's, and what is said to it so that it becomes so."""

from hypothesis import given
from hypothesis import strategies as st

from corral.discovery.runtime_api import read_processes, read_servers
from corral.discovery.services import Server, Service
from corral.discovery.slots import Slot, after, commands, place, same_shape, slot_name


def server(name: str, *, up: bool = True, weight: int = 100, port: int | None = None) -> Server:
    return Server(
        instance=name, app="/a", address="10.0.0.1", port=port or 31000 + hash(name) % 1000, weight=weight, up=up,
        leaving=not up,
    )  # fmt: skip


def service(*servers: Server) -> Service:
    return Service(name="b", app="/a", apps=("/a",), index=0, bind="*", port=1, servers=servers)


def test_a_new_backend_has_room_for_as_many_again() -> None:
    slots = place([service(server("x"), server("y"), server("z"))], {})["b"]
    assert [s.instance for s in slots] == ["x", "y", "z", "", "", ""]


def test_an_instance_keeps_its_slot_and_a_new_one_takes_a_spare_one() -> None:
    before = place([service(server("x"), server("y"))], {})
    now = place([service(server("new"), server("y"))], before)
    assert [s.instance for s in now["b"]] == ["new", "y", "", ""]
    assert same_shape(before, now)


def test_more_servers_than_slots_make_more_slots_and_none_moves() -> None:
    before = place([service(server("a"))], {})
    now = place([service(*(server(n) for n in "abcdefg"))], before)
    assert not same_shape(before, now)
    assert now["b"][0].instance == "a"
    assert len(now["b"]) == 14


def test_one_that_gets_no_traffic_takes_no_slot_but_keeps_the_one_it_has() -> None:
    before = place([service(server("a"))], {})
    now = place([service(server("a", up=False), server("b", up=False))], before)
    assert [s.instance for s in now["b"]] == ["a", "", "", ""]
    assert not now["b"][0].up


def test_what_goes_out_goes_before_what_comes_in() -> None:
    before = place([service(server("a", port=1), server("b", port=2))], {})
    wanted = place([service(server("a", port=1, up=False), server("b", port=2), server("c", port=3))], before)
    assert commands(before, wanted) == [
        "set server b/s1 state maint",
        "set server b/s3 addr 10.0.0.1 port 3",
        "set server b/s3 weight 100",
        "set server b/s3 state ready",
    ]


def test_nothing_is_said_when_nothing_differs() -> None:
    slots = place([service(server("a"))], {})
    assert commands(slots, slots) == []


def test_a_weight_alone_is_set_alone() -> None:
    before = place([service(server("a", weight=100))], {})
    wanted = place([service(server("a", weight=10))], before)
    assert commands(before, wanted) == ["set server b/s1 weight 10"]


def test_an_instance_that_moves_is_out_while_it_does() -> None:
    before = place([service(server("a", port=1))], {})
    wanted = place([service(server("a", port=2))], before)
    assert commands(before, wanted)[0] == "set server b/s1 state maint"
    assert commands(before, wanted)[-1] == "set server b/s1 state ready"


class Running:
    """HAProxy's servers, by the commands that they get."""

    def __init__(self, slots: tuple[Slot, ...]) -> None:
        self.servers = {
            f"b/{slot_name(i)}": [f"{s.address}:{s.port}", s.weight, s.up] for i, s in enumerate(slots)
        }  # fmt: skip

    def take(self, command: str) -> None:
        words = command.split()
        one = self.servers[words[2]]
        match words[3]:
            case "addr":
                assert one[2] is False, "a server that gets traffic must not move"
                one[0] = f"{words[4]}:{words[6]}"
            case "weight":
                one[1] = int(words[4])
            case "state":
                one[2] = words[4] == "ready"

    def serving(self) -> set[tuple[object, object]]:
        return {(address, weight) for address, weight, up in self.servers.values() if up}


@given(
    st.lists(
        st.sets(st.tuples(st.integers(1, 9), st.booleans(), st.sampled_from([0, 50, 100])), max_size=9), max_size=8
    )
)
def test_the_running_one_always_becomes_the_wanted_one(turns: list[set[tuple[int, bool, int]]]) -> None:
    slots = place([service()], {})
    running = Running(slots["b"])
    for turn in turns:
        one_each = {number: (number, up, weight) for number, up, weight in turn}.values()
        servers = [server(f"i{n}", up=up, weight=weight, port=1000 + n) for n, up, weight in one_each]
        wanted = place([service(*servers)], slots)
        if same_shape(slots, wanted):
            for command in commands(slots, wanted):
                running.take(command)
            slots = after(slots, wanted)
        else:
            slots, running = wanted, Running(wanted["b"])
        assert running.serving() == {(f"{s.address}:{s.port}", s.weight) for s in servers if s.up}


def test_workers_are_read_with_those_that_only_end_what_they_began() -> None:
    text = (
        "#<PID>          <type>          <reloads>       <uptime>        <version>\n"
        "100             master          1               0d00h00m10s     2.6.12\n"
        "# workers\n120             worker          0               0d00h00m02s     2.6.12\n"
        "# old workers\n110             worker          1               0d00h00m10s     2.6.12\n# programs\n\n"
    )
    assert [(w.pid, w.old) for w in read_processes(text).workers] == [(120, False), (110, True)]
    failed = read_processes(text.replace("master          1 ", "master          2 [failed: 1]"))
    assert (failed.reloads, failed.failed) == (2, 1)


def test_the_counts_of_servers_are_read_from_the_statistics() -> None:
    text = "# pxname,svname,qcur,scur,stot,status,\nb,s1,0,3,17,UP,\nb,BACKEND,0,3,17,UP,\nb,s2,,,,MAINT,\n\n"
    assert [(c.backend, c.server, c.current, c.total) for c in read_servers(text)] == [
        ("b", "s1", 3, 17),
        ("b", "s2", 0, 0),
    ]
