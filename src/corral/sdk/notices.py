"""Notices to the world outside that are records until somebody has confirmed them.

Rule: a notice survives a crash and may then arrive twice; one that is refused again and again is given up in the end.
"""

import re

import msgspec

from corral.lib.backoff import grow_delay_s
from corral.runtime.core import Effect, Loaded, Note, Persist, SetTimer, decode_records
from corral.sdk.effects import Notified, Notify

NOTICE = "notice/"
MOST_TRIES = 8
MOST_WAITING = 10_000
FIRST_RETRY_S = 5.0
RETRY_MOST_S = 600.0


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is on its way. Shapes: either `mail_to` or `url`; `body` is the text, or JSON for `url`."""

    id: str
    subject: str
    body: str
    mail_to: tuple[str, ...] = ()
    url: str = ""
    tries: int = 0


Outbox = dict[str, Notice]
"""The notices that wait, by their ids, each of them a record below `NOTICE`."""


def is_web_address(text: str) -> bool:
    """Whether something can be posted there: an http or https URL with a host."""
    return re.fullmatch(r"https?://[^\s/]\S*", text) is not None


def is_full(outbox: Outbox) -> bool:
    return len(outbox) >= MOST_WAITING


def send(outbox: Outbox, notice: Notice) -> list[Effect]:
    """Write it down, then try it for the first time."""
    outbox[notice.id] = notice
    return [Persist(NOTICE + notice.id, notice), deliver(notice)]


def take_up(outbox: Outbox, loaded: Loaded) -> list[Effect]:
    """What waited when the last process ended is tried anew."""
    outbox.update(decode_records(loaded, NOTICE, Notice))
    return [deliver(notice) for notice in outbox.values()]


def deliver(notice: Notice) -> Effect:
    return Notify(notice.id, notice.subject, notice.body, notice.mail_to, notice.url)


def notified(outbox: Outbox, event: Notified) -> list[Effect]:
    """It has arrived, or it is tried again later, and in the end given up."""
    notice = outbox.get(event.id)
    if notice is None:
        return []
    whom = notice.url or ", ".join(notice.mail_to)
    if not event.why:
        del outbox[event.id]
        return [Persist(NOTICE + event.id, None), Note("notice delivered", notice.subject, "debug", {"to": whom})]
    notice = msgspec.structs.replace(notice, tries=notice.tries + 1)
    if notice.tries >= MOST_TRIES:
        del outbox[event.id]
        return [Persist(NOTICE + event.id, None), Note("notice given up", event.why, "warning", {"to": whom})]
    # The count of tries is not worth a write: after a crash it begins anew.
    outbox[event.id] = notice
    delay_s = grow_delay_s(notice.tries, first_s=FIRST_RETRY_S, factor=3.0, most_s=RETRY_MOST_S)
    facts = {"to": whom, "retry_s": delay_s}
    return [Note("notice not delivered", event.why, "warning", facts), SetTimer(NOTICE + event.id, delay_s)]


def retry(outbox: Outbox, notice_id: str) -> list[Effect]:
    notice = outbox.get(notice_id)
    return [] if notice is None else [deliver(notice)]
