"""The page of activity: what was allowed and denied in the last hour, and the state of each sidecar; and the same as JSON."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from extauthz.console.activity import Activity, Layer, SidecarState
from extauthz.console.charts import MAX_LAYERS, NARROW, WIDE, Chart, short
from extauthz.console.visits import Visit

MOST_ROUTES = 50
SIZES = (WIDE, NARROW)
SLOW_FEED = 10.0
"""Seconds without a word of the token store after which a page says so."""


def charts_of(activity: Activity) -> tuple[Chart, Chart]:
    """Return what was allowed apart from what was denied: denials would be a line on the floor beside it."""
    return (
        Chart("allowed", "allowed", "Allowed checks per minute", activity.allowed),
        Chart("denied", "denied", "Denied checks per minute", activity.denied),
    )


async def show(visit: Visit) -> Response:
    """Show the last hour."""
    activity = await visit.context.collector.current()
    charts = [(chart, legend(chart.layers), [chart.drawing(size) for size in SIZES]) for chart in charts_of(activity)]
    return visit.page(
        "activity.html",
        **facts_of(visit, activity),
        charts=charts,
        routes=activity.routes[:MOST_ROUTES],
        more_routes=max(0, len(activity.routes) - MOST_ROUTES),
        short=short,
    )


async def numbers(visit: Visit) -> Response:
    """Return what the page shows, for its script."""
    activity = await visit.context.collector.current()
    drawn = {
        chart.identifier: {
            "description": chart.description,
            "scale": chart.scale_texts(),
            "paths": {size.name: chart.paths(size) for size in SIZES},
            "layers": [{"name": layer.name, "total": short(layer.total), "last": short(layer.last)} for layer in chart.layers],
            "total": short(total(chart.layers)),
        }
        for chart in charts_of(activity)
    }
    return JSONResponse(
        {"at": int(activity.at), "answering": activity.answering, "sidecars": len(activity.sidecars), "charts": drawn}
    )


def facts_of(visit: Visit, activity: Activity) -> dict[str, Any]:
    """Return what pages about activity show besides."""
    section = visit.context.configuration().settings.console
    return {
        "activity": activity,
        "is_configured": section is not None and bool(section.sidecars or section.prometheus),
        "is_prometheus": section is not None and section.prometheus is not None,
        "allowed_total": short(total(activity.allowed)),
        "denied_total": short(total(activity.denied)),
        "sidecars": [(sidecar, findings(sidecar)) for sidecar in activity.sidecars],
    }


def legend(layers: tuple[Layer, ...]) -> list[tuple[str, str, str]]:
    """Return name, hour and last minute of each layer, and empty rows for those that may come."""
    rows = [(layer.name, short(layer.total), short(layer.last)) for layer in layers]
    return [*rows, *[("", "", "")] * (MAX_LAYERS - len(rows))]


def total(layers: tuple[Layer, ...]) -> float:
    """Return all checks of layers."""
    return sum(layer.total for layer in layers)


def findings(sidecar: SidecarState) -> list[str]:
    """Return what is not as it should be with a sidecar, in words; nothing for a good one."""
    if sidecar.error is not None:
        return [f"does not answer: {sidecar.error}"]
    facts = sidecar.facts
    if facts is None:
        return []
    keys = [issuer for issuer, keys in facts.keys.items() if not keys.count]
    wrong = (
        (facts.is_ready is False, "is not ready"),
        (facts.is_config_stale, "serves an older configuration than its files are"),
        (facts.is_rewound, "answers 503 to issued tokens: the token store is an older one than it was"),
        (facts.is_store_stale, "answers 503 to issued tokens: the token store was not heard for too long"),
        (
            facts.feed_age is not None and facts.feed_age > SLOW_FEED,
            f"has not heard the token store for {facts.feed_age or 0:.0f} s",
        ),
        (bool(keys), f"has no keys of {', '.join(keys)}"),
    )
    return [text for is_so, text in wrong if is_so]
