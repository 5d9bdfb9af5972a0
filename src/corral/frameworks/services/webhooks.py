"""Tells URLs of what happens: every event is posted to each of them.

Rule: an event is a record until the URL has taken it, so it survives a change of the leader, and may then arrive twice;
events that follow each other quickly may arrive in another order. Source: Marathon's event callbacks, which were
neither kept nor repeated; their calls are those of the PyPI client.
"""

from collections.abc import Mapping
from hashlib import sha1
from typing import Any

import msgspec

from corral.frameworks.services.state import State
from corral.frameworks.services.webhook_spec import (
    WEBHOOK,
    AddWebhook,
    GetWebhooks,
    RemoveWebhook,
    Webhook,
    WebhookCommand,
)
from corral.lib.errors import Invalid, NotFound, TooMany
from corral.runtime.core import Effect, Note, Persist, Reply
from corral.sdk import notices
from corral.sdk.notices import Notice

MOST_WEBHOOKS = 32

Json = Any


def command(state: State, ask: int, asked: WebhookCommand, now: float) -> list[Effect]:
    """Errors: `Invalid` for no web address; `TooMany`; `NotFound` for one that is not told of events."""
    match asked:
        case AddWebhook(url=url):
            return _add(state, ask, url, asked.client_ip, now)
        case RemoveWebhook(url=url):
            return _remove(state, ask, url, asked.client_ip)
        case GetWebhooks():
            return [Reply(ask, {"callbackUrls": sorted(state.webhooks)})]


def _add(state: State, ask: int, url: str, client_ip: str, now: float) -> list[Effect]:
    if not notices.is_web_address(url):
        raise Invalid(f"callbackUrl is {url[:200]!r}; it must be an http or https URL")
    answer = {"clientIp": client_ip, "callbackUrl": url, "eventType": "subscribe_event"}
    if url in state.webhooks:
        return [Reply(ask, answer)]
    if len(state.webhooks) >= MOST_WEBHOOKS:
        raise TooMany(f"{MOST_WEBHOOKS} URLs are told of events already; take one out first")
    state.webhooks[url] = Webhook(url=url, since_at=now)
    state.listen()
    note = Note("webhook added", "somebody asked for it", facts={"to": url})
    return [Persist(_key(url), state.webhooks[url]), note, Reply(ask, answer)]


def _remove(state: State, ask: int, url: str, client_ip: str) -> list[Effect]:
    if url not in state.webhooks:
        raise NotFound(f"{url[:200]!r} is not told of events; GET /v2/eventSubscriptions lists who is")
    del state.webhooks[url]
    state.listen()
    effects: list[Effect] = [Persist(_key(url), None)]
    for notice_id in [each.id for each in state.outbox.values() if each.url == url]:
        del state.outbox[notice_id]
        effects.append(Persist(notices.NOTICE + notice_id, None))
    answer = {"clientIp": client_ip, "callbackUrl": url, "eventType": "unsubscribe_event"}
    return [*effects, Note("webhook removed", "somebody asked for it", facts={"to": url}), Reply(ask, answer)]


def _key(url: str) -> str:
    return WEBHOOK + sha1(url.encode(), usedforsecurity=False).hexdigest()


def post(state: State, kind: str, body: Mapping[str, Json]) -> list[Effect]:
    """One event to all URLs."""
    effects: list[Effect] = []
    for url in state.webhooks:
        if notices.is_full(state.outbox):
            why = f"{notices.MOST_WAITING} events wait to be taken already"
            return [*effects, Note("event not posted", why, "warning", {"to": url, "event": kind})]
        text = msgspec.json.encode(body).decode()
        made = Notice(id=f"{state.random.getrandbits(64):016x}", subject=kind, body=text, url=url)
        effects += notices.send(state.outbox, made)
    return effects
