"""Metrics, as Prometheus reads them."""

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from prometheus_client.metrics_core import Metric
from starlette.responses import Response

from api.problems import ProblemError
from api.services import services
from models.metrics import PATH, Families, exposition, refusal

router = APIRouter(tags=["health"])


@router.get(PATH)
async def read(request: Request) -> Response:
    """Return what this process counts, and how the database and Redis are; a part that is down is left out."""
    made = services(request)
    refused = refusal(made.settings, request.headers.get("authorization"))
    if refused:
        headers = {"WWW-Authenticate": "Bearer"} if refused[0] == 401 else None  # noqa: PLR2004 -- RFC 9110, 15.5.2
        raise ProblemError(refused[0], "The metrics are not open", refused[1], headers=headers)
    probed = await made.probe.look()

    def collect() -> list[Metric]:
        return [*made.registry.collect(), *probed]

    accept = request.headers.get("accept")
    text, content_type = await run_in_threadpool(exposition, Families(collect), accept)
    # The media type is set as it is: a framework would say the charset twice.
    return Response(text, headers={"Content-Type": content_type})
