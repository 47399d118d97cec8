"""The last hour out of a Prometheus that scrapes the sidecars: it keeps its history when the console begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.console.activity import MINUTES, MONITORED, Activity, SidecarState, layers, route_counts
from extauthz.console.metrics_text import CHECKS, GAUGES, INFOS, Sample, facts_of
from extauthz.errors import FetchError

BY_REASON = f"sum by (decision, reason) (increase({CHECKS}[1m]))"
BY_ROUTE = f"sum by (decision, route) (increase({CHECKS}[1h]))"
OF_SIDECARS = f'{{__name__=~"{"|".join((*INFOS, *GAUGES[:-1]))}"}}'


async def read_activity(fetcher: JsonFetcher, address: str, at: float, *, sidecars: Iterable[SidecarState] | None) -> Activity:
    """Ask for the hour before a moment, and for the sidecars that Prometheus knows, if `sidecars` are not known otherwise.

    Raises FetchError.
    """
    base = f"{address.rstrip('/')}/api/v1"
    end = int(at)
    start = end - 60 * (MINUTES - 1)
    span = {"query": BY_REASON, "start": start, "end": end, "step": 60}
    asked = [
        _results(fetcher, f"{base}/query_range?{urlencode(span)}"),
        _results(fetcher, f"{base}/query?{urlencode({'query': BY_ROUTE, 'time': end})}"),
    ]
    if sidecars is None:
        asked.append(_results(fetcher, f"{base}/query?{urlencode({'query': OF_SIDECARS, 'time': end})}"))
    by_reason, by_route, *of_sidecars = await asyncio.gather(*asked)
    try:
        minutes = _minutes(by_reason, start)
        routes: dict[tuple[bool, str], float] = {}
        for result in by_route:
            key = result["metric"].get("decision") != "deny", str(result["metric"].get("route", ""))
            routes[key] = routes.get(key, 0.0) + _number(result["value"][1])
        if not minutes and any(routes.values()):
            raise FetchError(f"{address} has no two scrapes in one minute: let it scrape sidecars every 30 s or more often")
        return Activity(
            at=at,
            since=at - 60 * MINUTES,
            allowed=layers({reason: points for (is_allowed, reason), points in minutes.items() if is_allowed}),
            denied=layers({reason: points for (is_allowed, reason), points in minutes.items() if not is_allowed}),
            routes=route_counts({key: count for key, count in routes.items() if count > 0}),
            sidecars=tuple(sidecars) if sidecars is not None else _sidecars(of_sidecars[0]),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise FetchError(f"{address}: the answer is not one of Prometheus") from error


async def _results(fetcher: JsonFetcher, address: str) -> list[Mapping[str, Any]]:
    document = (await fetcher.get(address)).document
    data = document.get("data") if isinstance(document, dict) and document.get("status") == "success" else None
    results = data.get("result") if isinstance(data, dict) else None
    if not isinstance(results, list):
        raise FetchError(f"{address.partition('?')[0]}: the answer is not one of Prometheus")
    return results


def _minutes(results: Iterable[Mapping[str, Any]], start: int) -> dict[tuple[bool, str], list[float]]:
    minutes: dict[tuple[bool, str], list[float]] = {}
    for result in results:
        decision, reason = result["metric"].get("decision"), str(result["metric"].get("reason", ""))
        key = decision != "deny", MONITORED if decision == MONITORED else reason
        points = minutes.setdefault(key, [0.0] * MINUTES)
        for at, value in result["values"]:
            index, count = round((at - start) / 60), _number(value)
            if 0 <= index < MINUTES:
                points[index] += count
    return minutes


def _sidecars(results: Iterable[Mapping[str, Any]]) -> tuple[SidecarState, ...]:
    samples: dict[str, list[Sample]] = {}
    for result in results:
        labels = result["metric"]
        samples.setdefault(str(labels.get("instance", "")), []).append((labels["__name__"], labels, float(result["value"][1])))
    # Prometheus forgets a target that does not answer after five minutes, and says nothing of when that began.
    return tuple(SidecarState(name, None, None, facts_of(several)) for name, several in sorted(samples.items()))


def _number(text: str) -> float:
    value = float(text)
    return value if value == value else 0.0
