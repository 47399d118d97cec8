"""The register of those who make faults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults.installation import Installation, Needs


@dataclass(frozen=True)
class Injector:
    """Makes one fault: it is in force inside the block.

    With `leaves_trace` the sidecar is started anew before anything else is tried on the installation.
    """

    inject: Callable[[Installation], contextlib.AbstractContextManager[None]]
    needs: Needs
    leaves_trace: bool
    module: str


INJECTORS: dict[str, Injector] = {}

Inject = Callable[[Installation], Iterator[None]]


def injector(needs: Needs | None = None, *, leaves_trace: bool = False) -> Callable[[Inject], Inject]:
    """Register a function, which makes a fault and, behind its `yield`, ends it, under its name."""

    def register(inject: Inject) -> Inject:
        made = contextlib.contextmanager(inject)
        INJECTORS[inject.__name__] = Injector(made, needs or Needs(), leaves_trace, inject.__module__)
        return inject

    return register
