"""What `make faults` measured last, beside the table: results.yaml."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.faults.table import Row
from tests.faults.trial import Trial

RESULTS = Path(__file__).with_name("results.yaml")
HEAD = "# Written by `make faults`: what was measured last of each row of faults.yaml. Do not edit.\n"


def digest(row: Row) -> str:
    """Return what changes with a row; which part of it `make test-long` runs is none of the measurement."""
    data = row.model_dump(mode="json", exclude={"in_suite"})
    cells = {
        phase: {kind: sorted(outcomes) for kind, outcomes in kinds.items()}
        for phase, kinds in data["expect"].items()
        if "left_out" not in kinds
    }
    return hashlib.sha256(json.dumps(data | {"expect": cells}, sort_keys=True).encode()).hexdigest()[:12]


def entry(found: Trial) -> dict[str, Any]:
    """Return what is kept of a trial."""
    return {
        "name": found.name,
        "row": digest(found.row),
        "seen": {kind.value: dict(sorted(counts.items())) for kind, counts in found.seen.items()},
        "recovery": _rounded(found.recovery),
        "limit": _rounded(found.limit),
        "noticed": _rounded(found.noticed),
        "noticed_limit": _rounded(found.noticed_limit),
        "slowest": _rounded(found.slowest),
        "slowest_limit": _rounded(found.slowest_limit),
        "signs": found.signs,
        "errors": found.errors,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def load() -> dict[str, Any]:
    """Read the results: `measured` tells when and on what, `trials` are entries by name."""
    if not RESULTS.exists():
        return {"measured": None, "trials": {}}
    return dict(yaml.load(RESULTS.read_text(encoding="utf-8"), yaml.CSafeLoader))


def save(entries: Iterable[Mapping[str, Any]], rows: Iterable[Row], *, measured: str) -> None:
    """Put new entries in the place of older ones; those of rows that are gone go as well."""
    trials = load()["trials"]
    trials |= {one["name"]: {key: value for key, value in one.items() if key != "name"} for one in entries}
    known = {f"{row.id}/{database}/{phase}" for row in rows for database in row.databases for phase in row.phases}
    kept = {name: trials[name] for name in sorted(trials) if name in known}
    text = yaml.safe_dump({"measured": measured, "trials": kept}, sort_keys=False, width=130)
    RESULTS.write_text(HEAD + text, encoding="utf-8")
