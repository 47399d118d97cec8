"""A sidecar with a collector of spans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.collector import Collector, collecting
from tests.support.sidecar import Sidecar

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
CLIENTS = f"00-{'c' * 32}-{'d' * 16}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def traced_sidecar(sidecar: Sidecar, collector: Collector, **tracing: Any) -> str:
    """Write the section, start, and return a token."""
    sidecar.settings["tracing"] = {"endpoint": collector.endpoint, **tracing}
    sidecar.write()
    token = sidecar.token()
    sidecar.start()
    return token
