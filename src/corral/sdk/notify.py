"""Carries notices to the world outside: mails by SMTP, JSON by HTTP POST.

Each is tried once; who asked may ask again.
"""

import asyncio
import hmac
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import localtime
from pathlib import Path

import aiohttp
import msgspec

from corral.sdk.effects import Notified, Notify

TIMEOUT_S = 20.0
MOST_AT_ONCE = 8
SIGNATURE = "Corral-Signature"


class MailServer(msgspec.Struct, frozen=True, kw_only=True):
    """How mails leave. Shapes: `server` is `host:port`; `security` is `none`, `starttls` or `tls`; the password is read
    from its file each time."""

    server: str = "127.0.0.1:25"
    sender: str = ""
    user: str = ""
    password_file: str = ""
    security: str = "none"


class Notifier:
    """Delivers notices, a few at a time, so that a server that hangs holds up no more than its own share.

    Shapes: with a `secret_file`, read each time, what is posted is signed.
    """

    def __init__(self, mail: MailServer | None = None, secret_file: str = "") -> None:
        self._mail = mail
        self._secret_file = secret_file
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, notice: Notify) -> Notified:
        async with self._slots:
            try:
                why = await (self._post(notice) if notice.url else self._post_mail(notice))
            except (aiohttp.ClientError, OSError, smtplib.SMTPException, TimeoutError, ValueError) as error:
                why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Notified(notice.id, why)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, notice: Notify) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        body = notice.body.encode()
        headers = {"Content-Type": "application/json"}
        if self._secret_file:
            headers[SIGNATURE] = sign(await asyncio.to_thread(_read_secret, self._secret_file), body)
        async with self._session.post(notice.url, data=body, headers=headers) as answer:
            return "" if answer.status < 300 else f"{notice.url} answered {answer.status} {answer.reason}"

    async def _post_mail(self, notice: Notify) -> str:
        if self._mail is None:
            return "no mail server is configured"
        message = EmailMessage()
        message["From"] = self._mail.sender
        message["To"] = ", ".join(notice.mail_to)
        message["Subject"] = " ".join(notice.subject.split())
        message["Date"] = localtime()
        # Of the notice and not of this try: who gets it twice can tell.
        message["Message-ID"] = f"<{notice.id}@{self._mail.sender.rpartition('@')[2].strip('> ') or 'localhost'}>"
        message.set_content(notice.body)
        await asyncio.to_thread(_hand_over, self._mail, message)
        return ""


def _read_secret(path: str) -> bytes:
    return Path(path).read_bytes().strip()


def sign(secret: bytes, body: bytes) -> str:
    """What proves that a body comes from who knows the secret, and has not been changed."""
    return "sha256=" + hmac.new(secret, body, "sha256").hexdigest()


def _hand_over(mail: MailServer, message: EmailMessage) -> None:
    host, _, port = mail.server.rpartition(":")
    context = ssl.create_default_context()
    if mail.security == "tls":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port), timeout=TIMEOUT_S, context=context)
    else:
        smtp = smtplib.SMTP(host, int(port), timeout=TIMEOUT_S)
    with smtp:
        if mail.security == "starttls":
            smtp.starttls(context=context)
        if mail.user:
            password = Path(mail.password_file).read_text(encoding="utf-8").strip() if mail.password_file else ""
            smtp.login(mail.user, password)
        smtp.send_message(message)
