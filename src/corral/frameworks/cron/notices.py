"""Tells people and programs of what became of a job: a mail to each owner, a POST to each webhook, a line in a chat.

Rule: a notice is a record until its delivery is confirmed, so it survives a crash, and may then arrive twice.
Source: Chronos' contract, section 4.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from corral.frameworks.cron.state import Job, State
from corral.lib.units import format_timestamp
from corral.runtime.core import Effect, Note
from corral.sdk.notices import MOST_WAITING, Notice, is_full, send


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
    chat = state.config.slack_url
    if not mails and not urls and not chat:
        return []
    kind, name = whom
    if is_full(state.notices):
        return [Note("notice dropped", f"{MOST_WAITING} notices wait already", "warning", {kind: name})]
    cluster = f"[{state.config.cluster_name}] " if state.config.cluster_name else ""
    subject = f"{cluster}[Chronos] {kind} '{name}' {what}{'!' if what == 'failed' else ''}"
    at = format_timestamp(now)
    effects: list[Effect] = []
    words = f"{at} {kind} {name} {what}: {text}\n"
    if chat:
        body = msgspec.json.encode({"text": f"{subject}\n{words}"}).decode()
        effects += send(state.notices, Notice(id=state.mint_run_id(), subject=subject, body=body, url=chat))
    if mails:
        effects += send(state.notices, Notice(id=state.mint_run_id(), subject=subject, body=words, mail_to=mails))
    told = {"event": what, "message": text, "at": at, "owner": owner, "subject": subject, **facts}
    for url in urls:
        body = msgspec.json.encode(told).decode()
        effects += send(state.notices, Notice(id=state.mint_run_id(), subject=subject, body=body, url=url))
    return effects
