"""What sidecars allowed and denied in the last hour, as far as the console heard them."""

from __future__ import annotations

from pydantic import BaseModel

from extauthz.admin.metadata import utc
from extauthz.console.activity import Activity, Layer, SidecarState
from extauthz.console.api.operations import ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.values import Answer, Time


class ReasonAnswer(Answer):
    """How many checks ended for a reason, in all and in each minute of the hour, the oldest first."""

    reason: str
    total: float
    minutes: list[float]


class RouteActivityAnswer(Answer):
    """How many checks a route had in the hour."""

    route: str
    allowed: float
    denied: float


class SidecarAnswer(Answer):
    """A sidecar as it was seen last; `error` says why it does not answer, and `since` when it began to be so, null if not known."""

    name: str
    since: Time | None
    error: str | None


class ActivityAnswer(Answer):
    """The hour before `at`; counting began at `since`. `error` says why nothing is known, where that is so.

    Reasons and routes with the most checks stand first; the rest of them are counted as `(other)`.
    """

    at: Time
    since: Time | None
    error: str | None
    allowed: list[ReasonAnswer]
    denied: list[ReasonAnswer]
    routes: list[RouteActivityAnswer]
    sidecars: list[SidecarAnswer]


async def read(request: ApiRequest) -> ApiAnswer:
    """Return the last hour."""
    return ApiAnswer(shown(await request.collector.current()))


def shown(activity: Activity) -> BaseModel:
    """Return what is told of an hour."""
    return ActivityAnswer(
        at=_moment(activity.at),
        since=None if activity.since is None else _moment(activity.since),
        error=activity.error,
        allowed=[_reason(layer) for layer in activity.allowed],
        denied=[_reason(layer) for layer in activity.denied],
        routes=[RouteActivityAnswer(route=row.route, allowed=row.allowed, denied=row.denied) for row in activity.routes],
        sidecars=[_sidecar(each) for each in activity.sidecars],
    )


def _reason(layer: Layer) -> ReasonAnswer:
    return ReasonAnswer(reason=layer.name, total=layer.total, minutes=list(layer.minutes))


def _sidecar(sidecar: SidecarState) -> SidecarAnswer:
    since = None if sidecar.since is None else _moment(sidecar.since)
    return SidecarAnswer(name=sidecar.name, since=since, error=sidecar.error)


def _moment(seconds: float) -> str:
    return str(utc(int(seconds)))


OPERATIONS = (
    ApiOperation("readActivity", "GET", "/activity", "Read what was allowed and denied in the last hour", read, ActivityAnswer),
)
