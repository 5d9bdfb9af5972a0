"""Who is told of events by HTTP: the record of each URL, and what may be asked about them."""

import msgspec

WEBHOOK = "webhook/"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A URL to which every event is posted. Units: `since_at` UTC seconds."""

    url: str
    since_at: float


class AddWebhook(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    url: str
    client_ip: str = ""


class RemoveWebhook(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    url: str
    client_ip: str = ""


class GetWebhooks(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


WebhookCommand = AddWebhook | RemoveWebhook | GetWebhooks
