"""Notices to real servers on loopback: a POST to HTTP, a mail to SMTP, and what is said when nobody takes them."""

import asyncio
import email
import hmac
import time
from collections.abc import AsyncIterator
from email.policy import default
from pathlib import Path

import pytest
from aiohttp import web

from corral.sdk.effects import Notify
from corral.sdk.notify import MailServer, Notifier


class Mailbox:
    """An SMTP server that takes one mail after the other and remembers what it was told."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.words: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            word = line.decode().strip()
            self.words.append(word)
            verb = word.upper()
            if verb.startswith("EHLO"):
                writer.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                self.mails.append((await reader.readuntil(b"\r\n.\r\n"))[:-5])
                writer.write(b"250 taken\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            elif verb.startswith("AUTH"):
                writer.write(b"235 known\r\n")
            elif verb.startswith("RCPT") and "nobody" in word:
                writer.write(b"550 no such user\r\n")
            else:
                writer.write(b"250 fine\r\n")
        writer.close()


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    box = Mailbox()
    server = await asyncio.start_server(box.serve, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    yield box
    server.close()
    await server.wait_closed()


async def test_a_mail_goes_to_all_its_readers_with_subject_and_text(mailbox: Mailbox, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    server = MailServer(
        server=f"127.0.0.1:{mailbox.port}", sender="cron@example.org", user="cron",
        password_file=str(tmp_path / "password"),
    )  # fmt: skip
    notifier = Notifier(server)
    notice = Notify("n1", "job 'a'\nfailed!", "it failed\n", ("x@example.org", "y@example.org"))
    found = await notifier.send(notice)
    assert (found.id, found.why) == ("n1", "")
    (mail,) = [email.message_from_bytes(m, policy=default) for m in mailbox.mails]
    assert (mail["From"], mail["To"]) == ("cron@example.org", "x@example.org, y@example.org")
    assert mail["Subject"] == "job 'a' failed!"
    assert abs(mail["Date"].datetime.timestamp() - time.time()) < 60
    assert mail["Message-ID"] == "<n1@example.org>"
    assert mail.get_content().strip() == "it failed"
    assert any(word.startswith("AUTH PLAIN") for word in mailbox.words)
    await notifier.close()


async def test_a_mail_that_is_refused_says_why(mailbox: Mailbox) -> None:
    notifier = Notifier(MailServer(server=f"127.0.0.1:{mailbox.port}", sender="cron@example.org"))
    found = await notifier.send(Notify("n", "s", "b", ("nobody@example.org",)))
    assert "no such user" in found.why
    assert mailbox.mails == []


async def test_without_a_mail_server_nothing_is_sent_and_that_is_said() -> None:
    assert (await Notifier().send(Notify("n", "s", "b", ("x@example.org",)))).why == "no mail server is configured"


async def test_a_post_carries_json_and_an_answer_that_is_no_success_is_a_reason() -> None:
    taken: list[tuple[str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        taken.append((request.content_type, await request.read()))
        return web.Response(status=204 if request.path == "/good" else 500)

    app = web.Application()
    app.router.add_post("/{name}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    notifier = Notifier()
    try:
        assert (await notifier.send(Notify("g", "s", '{"a":1}', url=f"http://127.0.0.1:{port}/good"))).why == ""
        bad = await notifier.send(Notify("b", "s", "{}", url=f"http://127.0.0.1:{port}/bad"))
        assert "answered 500" in bad.why
        assert taken[0] == ("application/json", b'{"a":1}')
    finally:
        await notifier.close()
        await runner.cleanup()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://", "nonsense"])
async def test_an_address_that_nobody_answers_at_is_a_reason_and_no_failure(url: str) -> None:
    notifier = Notifier()
    assert (await notifier.send(Notify("n", "s", "{}", url=url))).why
    await notifier.close()


async def test_what_is_posted_is_signed_where_there_is_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key\n")
    heard: list[tuple[str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        heard.append((request.headers.get("Corral-Signature", ""), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/in", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
    for secret_file in (str(tmp_path / "secret"), "", str(tmp_path / "missing")):
        notifier = Notifier(secret_file=secret_file)
        found = await notifier.send(Notify("n", "kind", '{"a": 1}', url=url))
        assert bool(found.why) == secret_file.endswith("missing"), "nothing goes out unsigned for want of the secret"
        await notifier.close()
    await runner.cleanup()
    digest = hmac.new(b"key", b'{"a": 1}', "sha256").hexdigest()
    assert heard == [(f"sha256={digest}", b'{"a": 1}'), ("", b'{"a": 1}')]
