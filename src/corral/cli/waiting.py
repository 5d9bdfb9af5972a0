"""Why apps wait that take only what is reserved for their role: the kernel knows no wants of theirs, the queue does."""

from typing import Any

from corral.cli.client import Client
from corral.cli.services import app_id
from corral.lib.errors import NotFound


def explain_reserved(client: Client, name: str | None) -> list[dict[str, Any]]:
    """Explanations in the form of the kernel's, of the app or of all. Shapes: `framework_id` None tells them apart."""
    try:
        queue = client.get("/v2/queue")["queue"]
    except NotFound:
        # No services framework runs.
        return []
    found = []
    for item in queue:
        body = item.get("app") or item["pod"]
        roles = accepted_roles(body)
        if roles and "*" not in roles and (name is None or body["id"] == app_id(name)):
            found.append(_explain(item, body["id"], roles[0]))
    return [each for each in found if each["waiting"]]


def accepted_roles(body: dict[str, Any]) -> list[str]:
    """The roles whose resources an app or a pod takes; none for any that it may take."""
    placement = body.get("scheduling", {}).get("placement", {})
    roles: list[str] = body.get("acceptedResourceRoles") or placement.get("acceptedResourceRoles") or []
    return roles


def _explain(item: dict[str, Any], want_id: str, role: str) -> dict[str, Any]:
    summary = item["processedOffersSummary"]
    return {
        "want_id": want_id, "framework_id": None, "role": role, "waiting": item["count"], "since_at": item["since"],
        "agents": summary["processedOffersCount"], "refusals": summary.get("reasons", []), "fits_if": [],
        "never": False,
    }  # fmt: skip
