"""Monitor mode in the configuration: for which routes it is on, and what has to be said about that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from extauthz.config.wording import counted
from extauthz.core.policy import Policy

Mode = Literal["enforce", "monitor"]

MAX_NAMED = 5
"""Names of routes in one warning."""


def monitored(routes: Iterable[tuple[str, Mode | None]], everywhere: Mode) -> frozenset[str | None]:
    """Return what Policy.monitored holds, from names of routes with their own mode and the mode of everything else."""
    names = (name for name, mode in routes if (mode or everywhere) == "monitor")
    return frozenset([*names, *([None] if everywhere == "monitor" else [])])


def warning(names: frozenset[str | None], count: int) -> str:
    """Say that monitor mode is on, for how many of `count` routes, and where that is dangerous."""
    number = len(names - {None})
    others = ", and for requests that match no route" if None in names else ""
    where = f"{number} of {counted(count, 'route')}{others}"
    return (
        f"monitor mode is on for {where}: what enforcing would refuse is forwarded; "
        "never use it in front of an upstream that trusts the identity headers without its own authentication"
    )


def weakened(before: Policy, after: Policy) -> list[str]:
    """Return a warning for each part that a reload takes from enforce to monitor; routes that are new in monitor mode count too."""
    warnings = []
    added = after.monitored - before.monitored
    if None in added:
        warnings.append("monitor mode is on from now on for requests that match no route: they were refused, and are forwarded now")
    names = sorted(name for name in added if name is not None)
    if names:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        routes = counted(len(names), "route")
        listing = ", ".join(map(repr, names[:MAX_NAMED]))
        warnings.append(f"monitor mode is on from now on for {routes}, whose refusals are forwarded now: {listing}{more}")
    return warnings
