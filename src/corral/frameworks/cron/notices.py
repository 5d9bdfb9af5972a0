"""Tells people and programs of what became of a job: a mail to each owner, a POST to each webhook.

Rule: a notice is a record until its delivery is confirmed, so it survives a crash, and may then arrive twice.
Source: Chronos' contract, section 4.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from corral.frameworks.cron.spec import Notice
from corral.frameworks.cron.state import Job, State, replace
from corral.lib.backoff import grow_delay_s
from corral.lib.units import format_timestamp
from corral.runtime.core import Effect, Note, Persist, SetTimer
from corral.sdk.effects import Notified, Notify

NOTICE = "notice/"
MOST_TRIES = 8
MOST_WAITING = 10_000
FIRST_RETRY_S = 5.0
RETRY_MOST_S = 600.0


def tell(state: State, job: Job, what: str, text: str, now: float) -> list[Effect]:
    """Shapes: `what` is `failed`, `recovered`, `disabled` or `deleted`."""
    facts = {
        "job": job.name, "successCount": job.progress.successes, "errorCount": job.progress.errors,
        "errorsSinceLastSuccess": job.progress.errors_since,
    }  # fmt: skip
    return tell_about(
        state, ("job", job.name), what, text, owner=job.spec.owner, webhook=job.spec.webhook, facts=facts, now=now
    )


def tell_about(
    state: State,
    whom: tuple[str, str],
    what: str,
    text: str,
    *,
    owner: str,
    webhook: str,
    facts: Mapping[str, Any],
    now: float,
) -> list[Effect]:
    """Tell the owners of something, and the webhooks. Shapes: `whom` is its kind and its name; `facts` go into JSON."""
    owners = tuple(sorted({o.strip() for o in owner.split(",")} - {""}))
    urls = sorted({state.config.webhook_url, webhook} - {""})
    mails = owners if state.config.mail_from else ()
    if not mails and not urls:
        return []
    kind, name = whom
    if len(state.notices) >= MOST_WAITING:
        return [Note("notice dropped", f"{MOST_WAITING} notices wait already", "warning", {kind: name})]
    cluster = f"[{state.config.cluster_name}] " if state.config.cluster_name else ""
    subject = f"{cluster}[Chronos] {kind} '{name}' {what}{'!' if what == 'failed' else ''}"
    at = format_timestamp(now)
    effects: list[Effect] = []
    if mails:
        body = f"{at} {kind} {name} {what}: {text}\n"
        effects += _send(state, Notice(id=state.mint_run_id(), subject=subject, body=body, mail_to=mails))
    told = {"event": what, "message": text, "at": at, "owner": owner, "subject": subject, **facts}
    for url in urls:
        body = msgspec.json.encode(told).decode()
        effects += _send(state, Notice(id=state.mint_run_id(), subject=subject, body=body, url=url))
    return effects


def _send(state: State, notice: Notice) -> list[Effect]:
    state.notices[notice.id] = notice
    return [Persist(NOTICE + notice.id, notice), deliver(notice)]


def deliver(notice: Notice) -> Effect:
    return Notify(notice.id, notice.subject, notice.body, notice.mail_to, notice.url)


def notified(state: State, event: Notified) -> list[Effect]:
    """It has arrived, or it is tried again later, and in the end given up."""
    notice = state.notices.get(event.id)
    if notice is None:
        return []
    whom = notice.url or ", ".join(notice.mail_to)
    if not event.why:
        del state.notices[event.id]
        return [Persist(NOTICE + event.id, None), Note("notice delivered", notice.subject, "debug", {"to": whom})]
    notice = replace(notice, tries=notice.tries + 1)
    if notice.tries >= MOST_TRIES:
        del state.notices[event.id]
        return [Persist(NOTICE + event.id, None), Note("notice given up", event.why, "warning", {"to": whom})]
    # The count of tries is not worth a write: after a crash it begins anew.
    state.notices[event.id] = notice
    delay_s = grow_delay_s(notice.tries, first_s=FIRST_RETRY_S, factor=3.0, most_s=RETRY_MOST_S)
    facts = {"to": whom, "retry_s": delay_s}
    return [Note("notice not delivered", event.why, "warning", facts), SetTimer(NOTICE + event.id, delay_s)]


def retry(state: State, notice_id: str) -> list[Effect]:
    notice = state.notices.get(notice_id)
    return [] if notice is None else [deliver(notice)]
