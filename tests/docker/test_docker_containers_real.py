"""What a task asks of its container, on a real Engine."""

import asyncio
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
from docker_node import Node, eventually, read
from tests.own_ports import free_ports

from corral.lib.errors import Failed
from corral.model.container import NetworkMode, PortMapping
from corral.model.execution import Mount

pytestmark = pytest.mark.docker


def fetch(port: int) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return bytes(answer.read())


async def fetch_soon(port: int) -> bytes:
    for _ in range(100):
        try:
            return await asyncio.to_thread(fetch, port)
        except OSError:
            await asyncio.sleep(0.05)
    raise AssertionError(f"nobody answers on port {port}")


async def test_a_missing_image_is_named_with_the_engines_words(node: Node) -> None:
    execution = node.execution(image="127.0.0.1:9/no/such:1")
    with pytest.raises(Failed, match=r"image 127.0.0.1:9/no/such:1: not found .*connection refused") as raised:
        await node.runtime.start(execution)
    assert "check its name" in raised.value.message
    assert list(await node.runtime.recover()) == []


async def test_an_image_name_that_is_none_is_refused_in_words(node: Node) -> None:
    with pytest.raises(Failed, match="repository name must be lowercase"):
        await node.runtime.start(node.execution(image="NO/such"))


async def test_a_forced_pull_that_fails_does_not_run_an_old_image(node: Node) -> None:
    with pytest.raises(Failed, match="pulling it failed"):
        await node.runtime.start(node.execution(image="127.0.0.1:9/busybox:1", force_pull=True))


async def test_a_port_that_another_program_holds_is_named(node: Node) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        mappings = (PortMapping(container_port=80, host_port=port),)
        execution = node.execution(network=NetworkMode.BRIDGE, port_mappings=mappings)
        with pytest.raises(Failed, match=f"port {port} on this host is taken"):
            await node.runtime.start(execution)
    assert list(await node.runtime.recover()) == []


async def test_a_port_that_another_container_holds_is_named(node: Node) -> None:
    port = free_ports(1)[0]
    mappings = (PortMapping(container_port=80, host_port=port),)
    await node.runtime.start(node.execution(network=NetworkMode.BRIDGE, port_mappings=mappings))
    with pytest.raises(Failed, match=f"port {port} on this host is taken"):
        await node.runtime.start(node.execution(network=NetworkMode.BRIDGE, port_mappings=mappings))


async def test_a_mapped_port_reaches_a_container_on_the_bridge(node: Node) -> None:
    port = free_ports(1)[0]
    execution = node.execution(
        "echo bridged > /var/www/index.html; exec httpd -f -p 80 -h /var/www",
        network=NetworkMode.BRIDGE,
        port_mappings=(PortMapping(container_port=80, host_port=port),),
    )
    launched = await node.runtime.start(execution)
    assert launched.ip is not None
    assert await fetch_soon(port) == b"bridged\n"


async def test_a_container_on_the_hosts_network_listens_on_the_host(node: Node) -> None:
    port = free_ports(1)[0]
    script = f"echo hosted > /var/www/index.html; exec httpd -f -p {port} -h /var/www"
    launched = await node.runtime.start(node.execution(script))
    assert launched.ip is None
    assert await fetch_soon(port) == b"hosted\n"


async def test_a_container_without_a_network_has_only_itself(node: Node) -> None:
    said, _ = await node.run("ls /sys/class/net", network=NetworkMode.NONE)
    assert "lo" in said.split()
    assert not [name for name in said.split() if name.startswith("eth")]


async def test_volumes_are_writable_or_not_as_asked(node: Node, tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / "given").write_text("given")
    made = tmp_path / "made" / "by-docker"
    said, exit = await node.run(
        "cat /etc/a/given; touch /etc/a/x 2>/dev/null || echo -n ' refused'; echo kept > /etc/b/file",
        mounts=(
            Mount(source=str(tmp_path / "ro"), target="/etc/a", read_only=True),
            Mount(source=str(made), target="/etc/b"),
        ),
    )
    assert (said, exit.code) == ("given refused", 0)
    assert (made / "file").read_text() == "kept\n"
    assert not (tmp_path / "ro" / "x").exists()


async def test_the_sandbox_lies_where_mesos_puts_it(node: Node) -> None:
    execution = node.execution("echo here > /mnt/mesos/sandbox/made; echo $MESOS_CONTAINER_NAME")
    await node.runtime.start(execution)
    await node.runtime.wait(execution.container_id)
    assert read(execution, "made") == "here\n"
    assert read(execution) == f"corral-{execution.container_id}\n"


async def test_arguments_go_to_the_images_entrypoint(node: Node) -> None:
    said, _ = await node.run(
        "", argv=("one", "two words"), entrypoint_args=True, parameters=(("entrypoint", "/bin/echo"),)
    )
    assert said == "one two words\n"


async def test_an_image_without_a_command_of_the_task_runs_its_own(node: Node) -> None:
    _, exit = await node.run("", argv=())  # the image's shell, which finds its input at its end
    assert exit.code == 0


async def test_flags_of_docker_run_reach_the_container(node: Node, tmp_path: Path) -> None:
    said, exit = await node.run(
        "echo $COLOUR; pwd; id -u; ulimit -n; hostname; cat /etc/hosts | grep -c 10.1.2.3; ls /extra; "
        "touch /x 2>/dev/null || echo read-only; df -k /scratch | tail -1 | awk '{print $2}'",
        network=NetworkMode.BRIDGE,
        parameters=(
            ("env", "COLOUR=red"), ("workdir", "/var"), ("user", "65534"), ("ulimit", "nofile=123:456"),
            ("hostname", "named"), ("add-host", "db:10.1.2.3"), ("volume", f"{tmp_path}:/extra:ro"),
            ("read-only", "true"), ("tmpfs", "/scratch:size=64k"),
        ),
    )  # fmt: skip
    assert exit.code == 0
    red, cwd, user, files, host, hosts, *rest = said.split()
    assert (red, cwd, user, files, host, hosts) == ("red", "/var", "65534", "123", "named", "1")
    assert rest[-2:] == ["read-only", "64"]


async def test_limits_and_labels_are_as_asked(node: Node) -> None:
    execution = node.execution(cpu_milli=500, cpu_limit_milli=1500, mem_mb=64, labels=(("team", "a"),))
    await node.runtime.start(execution)
    inspected = await node.inspect(execution)
    host, config = inspected["HostConfig"], inspected["Config"]
    assert isinstance(host, dict)
    assert isinstance(config, dict)
    assert (host["CpuShares"], host["NanoCpus"], host["Memory"]) == (512, 1_500_000_000, 64 << 20)
    assert config["Labels"]["corral.task"] == execution.task_id
    assert config["Labels"]["corral.framework"] == "framework"
    assert config["Labels"]["team"] == "a"


async def test_limits_of_a_running_container_can_change(node: Node) -> None:
    execution = node.execution(cpu_milli=500, mem_mb=64)
    await node.runtime.start(execution)
    name = f"corral-{execution.container_id}"
    await node.runtime.engine.update(name, {"CpuShares": 256})
    host = (await node.inspect(execution))["HostConfig"]
    assert isinstance(host, dict)
    assert host["CpuShares"] == 256
    assert (await node.runtime.engine.stats(name))["memory_stats"]["limit"] == 64 << 20


async def test_a_task_that_outgrows_its_memory_is_known_as_such_and_another_is_not(node: Node) -> None:
    _, greedy = await node.run("head -c 200000000 /dev/zero | tail -n 1; exit 137", mem_mb=32)
    _, modest = await node.run("exit 1", mem_mb=32)
    assert greedy.oom
    assert not modest.oom


async def test_a_program_without_the_right_to_run_is_told_from_a_missing_one(node: Node) -> None:
    with pytest.raises(Failed, match="may not be executed"):
        await node.runtime.start(node.execution("", argv=("/etc/passwd",)))
    with pytest.raises(Failed, match="command '/no/such' not found in image busybox:latest"):
        await node.runtime.start(node.execution("", argv=("/no/such",)))


async def test_ten_megabytes_in_a_second_are_all_there_in_their_order(node: Node) -> None:
    execution = node.execution("seq 1 300000; head -c 8000000 /dev/zero | tr '\\0' x; echo; echo end >&2")
    await node.runtime.start(execution)
    await node.runtime.wait(execution.container_id)
    lines = read(execution).splitlines()
    assert lines[:-1] == [str(number) for number in range(1, 300001)]
    assert lines[-1] == "x" * 8_000_000
    assert read(execution, "stderr") == "end\n"


async def test_output_goes_on_where_it_was_when_the_agent_comes_back(node: Node) -> None:
    execution = node.execution("i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; echo e$i >&2; usleep 5000; done")
    await node.runtime.start(execution)
    for seen in ("20\n", "120\n", "200\n"):
        await eventually(lambda seen=seen: seen in read(execution))  # type: ignore[misc]
        await node.restart_agent()
        await asyncio.sleep(0.1)
        await node.runtime.recover()
    assert (await node.runtime.wait(execution.container_id)).code == 0
    assert read(execution) == "".join(f"{number}\n" for number in range(1, 301))
    assert read(execution, "stderr") == "".join(f"e{number}\n" for number in range(1, 301))


async def test_output_of_a_task_that_ended_without_an_agent_is_still_copied(node: Node) -> None:
    execution = node.execution("echo first; sleep 0.5; echo last")
    await node.runtime.start(execution)
    await node.restart_agent()
    await asyncio.sleep(1.0)
    found = await node.runtime.recover()
    assert [one.exit is not None for one in found] == [True]
    await node.runtime.wait(execution.container_id)
    assert read(execution) == "first\nlast\n"


async def test_a_link_laid_by_a_task_does_not_lead_its_output_elsewhere(node: Node, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")
    execution = node.execution(f"echo one; sleep 0.2; ln -sf {precious} /mnt/mesos/sandbox/stdout; sleep 1; echo two")
    await node.runtime.start(execution)
    await eventually(lambda: (Path(execution.sandbox) / "stdout").is_symlink())
    await node.restart_agent()
    await node.runtime.recover()
    await node.runtime.wait(execution.container_id)
    assert precious.read_text() == "untouched"
    assert not (Path(execution.sandbox) / "stdout").is_symlink()


async def test_a_container_removed_by_somebody_else_ends_its_task(node: Node) -> None:
    execution = node.execution()
    await node.runtime.start(execution)
    await node.runtime.engine.remove(f"corral-{execution.container_id}", force=True)
    exit = await asyncio.wait_for(node.runtime.wait(execution.container_id), 20)
    assert exit.code != 0


async def test_a_shorter_grace_overtakes_a_longer_one(node: Node) -> None:
    execution = node.execution("trap '' TERM; echo up; while :; do sleep 0.05; done")
    await node.runtime.start(execution)
    await eventually(lambda: "up" in read(execution))
    patient = asyncio.create_task(node.runtime.kill(execution.container_id, 60.0))
    await asyncio.sleep(0.1)
    await node.runtime.kill(execution.container_id, 0.3)
    assert (await node.runtime.wait(execution.container_id)).signal == 9
    await asyncio.wait_for(patient, 5)


async def test_agents_on_one_engine_see_their_own_containers_only(node: Node, tmp_path: Path) -> None:
    await node.runtime.start(node.execution())
    other = Node(tmp_path / "other", node.url)
    assert list(await other.runtime.recover()) == []
    await other.close()


async def test_many_starts_at_once_all_come_up(node: Node) -> None:
    executions = [node.execution("sleep 600", network=NetworkMode.NONE) for _ in range(8)]
    launched = await asyncio.gather(*(node.runtime.start(execution) for execution in executions))
    assert len({one.pid for one in launched}) == 8
