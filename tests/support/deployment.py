"""Files of deploy/, and what has to differ between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT
from tests.support.tcp_postgres import TcpPostgres


def changed(text: str, changes: tuple[tuple[str, str], ...]) -> str:
    """Replace what stands in a text exactly once."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


ALERTS_FILE = ROOT / "deploy" / "prometheus" / "alerts.yaml"
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(ALERTS_FILE.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES}


COMPOSE = ROOT / "deploy" / "compose"


@pytest.fixture
def server() -> Iterator[TcpPostgres]:
    """A server of its own, since accounts belong to the server; passwords are asked of all but its owner."""
    started = TcpPostgres()
    yield started
    started.stop()
