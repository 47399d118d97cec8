"""What every page and every operation of the API works on: the configuration as it is now, the store, the clock, and threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import anyio

from extauthz.admin.administration import Administration
from extauthz.admin.overview import Overviews
from extauthz.admin.route_map import RouteMap
from extauthz.config.loader import Configuration
from extauthz.console.collecting import Collector
from extauthz.console.notices import Notice
from extauthz.console.recent_denials import RecentDenials

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
"""Use cases that run at a time: as many as the store has connections."""


@dataclass(frozen=True, slots=True)
class Context:
    """One console. What `configuration`, `administration` and `route_map` return counts now, and changes with the files.

    `notices` returns what is not as the files say.

    Use cases block, so a page calls them by `run`. What takes seconds of the processor is
    done one after the other, by `comparing`.
    """

    configuration: Callable[[], Configuration]
    administration: Callable[[], Administration]
    route_map: Callable[[], RouteMap]
    clock: Callable[[], float]
    notices: Callable[[], Sequence[Notice]] = tuple
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))
    comparing: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))
    collector: Collector = field(init=False)
    denials: RecentDenials = field(init=False)
    overviews: Overviews = field(init=False, default_factory=Overviews)

    def __post_init__(self) -> None:
        """Begin without a look at sidecars: that is the task `collector.run`, and what pages ask of `denials`."""
        object.__setattr__(self, "collector", Collector(self.configuration, self.clock))
        object.__setattr__(self, "denials", RecentDenials(self.configuration, self.clock))

    def now(self) -> int:
        """Return the time in whole seconds since the epoch."""
        return int(self.clock())

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a use case in a thread; others wait for their turn. Raises what it raises."""
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self.threads)
