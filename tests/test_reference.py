"""docs/reference.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from extauthz import __version__
from extauthz.adapters.metrics import Metrics
from extauthz.core.identity import FIELDS, OVERRIDE_HEADERS
from extauthz.core.model import ALLOWING, Deny, Reason

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"


def test_every_reason_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (.+) \|$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        (reason.value, str(reason.status), reason.told_as, reason.message) for reason in Reason if reason not in ALLOWING
    ]


def test_every_header_is_named() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for name in (*(f"x-extauthz-{part}" for part in FIELDS), *OVERRIDE_HEADERS):
        assert f"`{name}`" in text


def test_every_metric_of_ours_is_named() -> None:
    metrics = Metrics(__version__)
    metrics.record(None, Deny(Reason.INTERNAL), 0.001)
    served = {line.split()[2] for line in metrics.render().decode().splitlines() if line.startswith("# TYPE extauthz_")}
    named = set(re.findall(r"^\| `(extauthz_\w+)`", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
    source = (Path(__file__).parents[1] / "extauthz" / "app.py").read_text(encoding="utf-8")
    gauges = set(re.findall(r'add_gauge\("(\w+)"', source))
    counters = {f"{name}_total" for name in re.findall(r'add_counter\("(\w+)"', source)}
    infos = {f"{name}_info" for name in re.findall(r'add_info\("(\w+)"', source)}
    assert gauges
    assert counters
    assert infos
    assert named == served | gauges | counters | infos
