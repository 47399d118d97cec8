"""What sidecars allowed and denied in the last hour, and how they are."""

from __future__ import annotations

from extauthz.admin.metadata import utc
from extauthz.console.activity import MINUTES, Layer, SidecarState
from extauthz.console.api.operations import ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.problems import ApiProblem
from extauthz.console.api.values import Answer, Time

MAX_ROUTES = 100
"""Routes that are told, those with the most denials first."""


class ReasonSeries(Answer):
    """How many checks ended for a reason in each minute of the last hour, the oldest first."""

    reason: str
    total: float
    minutes: list[float]


class RouteActivityAnswer(Answer):
    """How many checks a route had in the last hour."""

    route: str
    allowed: float
    denied: float


class SidecarAnswer(Answer):
    """A sidecar as it was seen last; `error` says why it did not answer, and `since` when that, or its answering, began."""

    name: str
    since: Time
    error: str | None
    version: str | None
    config_hash: str | None
    config_stale: bool | None
    settings_version: int | None
    ready: bool | None


class ActivityAnswer(Answer):
    """The hour before `at`. Counting began at `since`, null before it did; `error` says why nothing is known."""

    at: Time
    since: Time | None
    error: str | None
    allowed: list[ReasonSeries]
    denied: list[ReasonSeries]
    routes: list[RouteActivityAnswer]
    answering: int
    sidecars: list[SidecarAnswer]


def read(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return the last hour."""
    activity = request.activity()
    return ApiAnswer(
        ActivityAnswer(
            at=str(utc(int(activity.at))),
            since=None if activity.since is None else utc(int(activity.since)),
            error=activity.error,
            allowed=list(map(_reason, activity.allowed)),
            denied=list(map(_reason, activity.denied)),
            routes=[
                RouteActivityAnswer(route=each.route, allowed=each.allowed, denied=each.denied)
                for each in activity.routes[:MAX_ROUTES]
            ],
            answering=activity.answering,
            sidecars=list(map(_sidecar, activity.sidecars)),
        )
    )


def _reason(layer: Layer) -> ReasonSeries:
    return ReasonSeries(reason=layer.name, total=layer.total, minutes=list(layer.minutes[-MINUTES:]))


def _sidecar(sidecar: SidecarState) -> SidecarAnswer:
    facts = sidecar.facts
    return SidecarAnswer(
        name=sidecar.name,
        since=str(utc(int(sidecar.since))),
        error=sidecar.error,
        version=facts and facts.version,
        config_hash=facts and facts.config_hash,
        config_stale=facts and facts.is_config_stale,
        settings_version=facts and facts.settings_version,
        ready=facts and facts.is_ready,
    )


OPERATIONS = (
    ApiOperation("readActivity", "GET", "/activity", "Read what was allowed and denied in the last hour", read, ActivityAnswer),
)
