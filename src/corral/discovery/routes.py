"""What a balancer tells of itself: what it serves, what it refused and why, the traffic of each app."""

from corral.discovery.balancer import Balancer
from corral.net.routes import Request, Response, Route, json_response


def routes(balancer: Balancer) -> list[Route]:
    async def view(request: Request) -> Response:
        return json_response(balancer.view())

    async def traffic(request: Request) -> Response:
        return json_response({"apps": balancer.traffic})

    async def ready(request: Request) -> Response:
        fine = balancer.ready.is_set() and not balancer.error
        return json_response({"ready": fine, "error": balancer.error or None}, status=200 if fine else 503)

    return [
        Route(method="GET", path="/corral/v1/lb", handler=view),
        Route(method="GET", path="/corral/v1/lb/traffic", handler=traffic),
        Route(method="GET", path="/health/ready", handler=ready),
    ]
