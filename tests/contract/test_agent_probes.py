"""What a probe tells of a real server, a real port and a further command; and of none of them."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from corral.agent.effects import Probe
from corral.agent.probes import Prober
from corral.agent.spec import Probed
from corral.docker.fake import FakeExec, FakeNode, FakeRuntime
from corral.lib.errors import Unavailable
from corral.model.command import CommandInfo
from corral.model.execution import Execution
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ContainerId, FrameworkId, TaskId

C1 = ContainerId("c1")


def effect(check: HealthCheck, index: int = 0) -> Probe:
    return Probe("process", C1, index, check, "127.0.0.1")


def http(port: int, path: str = "/", **more: object) -> Probe:
    more.setdefault("timeout_s", 5.0)
    return effect(HealthCheck(kind=CheckKind.HTTP, port=port, path=path, **more))  # type: ignore[arg-type]


def shell(value: str, **more: float) -> Probe:
    return effect(HealthCheck(kind=CheckKind.COMMAND, command=CommandInfo(value=value), **more))  # type: ignore[arg-type]


class Hanging(FakeExec):
    """A command that says nothing and does not end."""

    left = False

    async def output(self) -> AsyncIterator[tuple[str, bytes]]:
        await asyncio.Event().wait()
        yield "stdout", b""

    async def __aexit__(self, *_: object) -> None:
        self.left = True


@pytest.fixture
async def runtime() -> FakeRuntime:
    made = FakeRuntime(FakeNode(), name="process")
    await made.start(
        Execution(
            container_id=C1, task_id=TaskId("t"), framework_id=FrameworkId("f"), sandbox="/nowhere",
            argv=("/bin/sh", "-c", "sleep 60"),
        )
    )  # fmt: skip
    return made


@pytest.fixture
async def prober(runtime: FakeRuntime) -> AsyncIterator[Prober]:
    made = Prober(lambda name, container_id, argv: runtime.exec(container_id, argv, tty=False))
    yield made
    await made.close()


async def serve(ssl_context: ssl.SSLContext | None = None) -> tuple[web.AppRunner, int]:
    async def answer(request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        if what == "slow":
            await asyncio.sleep(30)
        if what == "there":
            raise web.HTTPFound("/404")
        if what == "circle":
            raise web.HTTPFound("/circle")
        return web.Response(status=int(what))

    app = web.Application()
    app.router.add_get("/{what}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
    await site.start()
    return runner, int(runner.addresses[0][1])


@pytest.fixture
async def port() -> AsyncIterator[int]:
    runner, port = await serve()
    yield port
    await runner.cleanup()


@pytest.fixture
async def closed_port() -> int:
    runner, port = await serve()
    await runner.cleanup()
    return port


async def test_an_http_answer_is_told_by_its_status(prober: Prober, port: int) -> None:
    assert await prober.probe(http(port, "/200")) == Probed(C1, 0, code=200)
    assert await prober.probe(http(port, "/503")) == Probed(C1, 0, code=503)


async def test_redirects_are_followed_unless_they_are_the_answer(prober: Prober, port: int) -> None:
    assert (await prober.probe(http(port, "/there"))).code == 404
    assert (await prober.probe(http(port, "/there", keeps_redirects=True))).code == 302
    assert "redirected more than" in ((await prober.probe(http(port, "/circle"))).why or "")


async def test_an_answer_that_takes_too_long_is_none(prober: Prober, port: int) -> None:
    told = await prober.probe(http(port, "/slow", timeout_s=0.1))
    assert (told.why, told.void) == ("there was no answer within 0.1 s", False)


async def test_a_port_where_nobody_listens_fails_both_kinds(prober: Prober, closed_port: int) -> None:
    for probe in (http(closed_port), effect(HealthCheck(kind=CheckKind.TCP, port=closed_port))):
        told = await prober.probe(probe)
        assert (told.why, told.void) == ("the connection failed: Connection refused", False)


async def test_a_port_that_takes_connections_passes(prober: Prober, port: int) -> None:
    check = HealthCheck(kind=CheckKind.TCP, port=port)
    assert await prober.probe(effect(check, index=3)) == Probed(C1, 3)


async def test_what_speaks_no_http_is_broken(prober: Prober) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        told = await prober.probe(http(server.sockets[0].getsockname()[1]))
    assert told.why is not None
    assert "broken" in told.why


async def test_a_certificate_that_nobody_signed_is_good_enough(prober: Prober, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=x"],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    runner, port = await serve(context)
    try:
        assert (await prober.probe(http(port, "/200", scheme="https"))).code == 200
        assert (await prober.probe(http(port, "/200"))).code in (None, 400)
    finally:
        await runner.cleanup()


async def test_a_command_is_told_by_its_exit_and_its_last_words(prober: Prober) -> None:
    assert await prober.probe(shell("echo fine; exit 0")) == Probed(C1, 0, code=0, said="fine")
    told = await prober.probe(shell("echo no >&2; exit 3"))
    assert (told.code, told.said) == (3, "no")


async def test_a_command_that_hangs_is_given_up_and_ended(runtime: FakeRuntime) -> None:
    hanging = Hanging(runtime.node, C1, ["sleep", "60"])
    told = await Prober(lambda *_: hanging).probe(shell("sleep 60", timeout_s=0.1))
    assert (told.why, told.void) == ("there was no answer within 0.1 s", False)
    assert hanging.left


class Stuck(Hanging):
    """A command of a runtime that answers nothing any more."""

    async def __aenter__(self) -> "Stuck":
        await asyncio.Event().wait()
        return self


class Clinging(Hanging):
    """A command that its runtime does not let go."""

    async def __aexit__(self, *_: object) -> None:
        await asyncio.Event().wait()


async def test_a_runtime_that_hangs_is_not_held_against_the_task_and_does_not_end_the_probing(
    runtime: FakeRuntime,
) -> None:
    stuck = Prober(lambda *_: Stuck(runtime.node, C1, ["true"]), patience_s=0.1)
    told = await stuck.probe(shell("true", timeout_s=0.01))
    assert (told.why, told.void) == ("process did not start the command within 0.1 s", True)
    clinging = Prober(lambda *_: Clinging(runtime.node, C1, ["true"]), patience_s=0.1)
    told = await clinging.probe(shell("true", timeout_s=0.1))
    assert (told.why, told.void) == ("there was no answer within 0.1 s", False)


@pytest.mark.parametrize("trouble", [Unavailable("Docker does not answer"), None])
async def test_a_command_that_cannot_be_run_for_want_of_a_runtime_says_nothing_of_the_task(
    runtime: FakeRuntime, trouble: Unavailable | None
) -> None:
    def open_none(name: str, container_id: str, argv: object) -> object:
        if trouble is not None:
            raise trouble
        return runtime.exec("gone", ["true"], tty=False)

    prober = Prober(open_none)  # type: ignore[arg-type]
    told = await prober.probe(shell("true"))
    assert told.void
    assert told.why


async def test_the_check_s_own_environment_goes_before_its_command(prober: Prober) -> None:
    seen: list[list[str]] = []

    def record(name: str, container_id: str, argv: list[str]) -> object:
        seen.append(list(argv))
        raise Unavailable("enough seen")

    recording = Prober(record)  # type: ignore[arg-type]
    env = (("A", "1"),)
    plain = CommandInfo(value="/bin/check", shell=False, arguments=("check", "-v"), environment=env)
    for command in (plain, CommandInfo(value="x | y")):
        await recording.probe(effect(HealthCheck(kind=CheckKind.COMMAND, command=command)))
    assert seen == [["env", "A=1", "/bin/check", "-v"], ["/bin/sh", "-c", "x | y"]]
