"""Reads faults.yaml: which faults there are, what must be seen of each, and nothing that is not understood."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from extauthz.core.model import Reason
from extauthz.telemetry.metric_table import TABLE

FAULTS = Path(__file__).with_name("faults.yaml")
ENVOY, NOTHING = "envoy", "no answer"
"""In place of a reason: Envoy answered for itself; and not even that."""
OTHERWISE = "otherwise"


class Phase(StrEnum):
    """When a fault comes."""

    BEFORE_START = "before_start"
    IDLE = "idle"
    UNDER_LOAD = "under_load"


class Group(StrEnum):
    """What is at fault, as docs/reliability.md puts it in order."""

    STREAMS = "Standard streams"
    PROCESSES = "Processes"
    FILES = "Files, sockets and descriptors"
    CONFIGURATION = "Configuration"
    ISSUER = "The issuer"
    STORE = "The token store"
    CHANGES = "Changes of the token store"


class Kind(StrEnum):
    """What is asked meanwhile, by somebody who may."""

    KNOWN_TOKEN = "known_token"
    NEW_TOKEN = "new_token"
    KNOWN_OAUTH = "known_oauth"
    NEW_OAUTH = "new_oauth"
    PUBLIC = "public"


Database = Literal["sqlite", "postgresql"]
_TOLD = {reason.public_name for reason in Reason} | {ENVOY}


def _outcomes(text: object) -> frozenset[str]:
    """Read statuses, each with its reason unless it is 200, as "200 or 503 store_unavailable"."""
    parts = str(text).split(" or ")
    for part in parts:
        status, _, reason = part.partition(" ")
        if part not in ("200", NOTHING) and not (re.fullmatch(r"[45]\d\d", status) and reason in _TOLD):
            raise ValueError(f"{part!r} is no outcome: write 200, '503 store_unavailable', '503 {ENVOY}' or '{NOTHING}'")
    return frozenset(parts)


def _metric(text: str) -> str:
    name = re.match(r"[a-z_]+", text)
    if not re.fullmatch(r"[a-z_]+(\{[^}]*\})? (grows|[<>=]=? ?[\d.]+)", text) or name is None:
        raise ValueError(f"{text!r} is no condition: write 'name{{labels}} grows', '… == 1' or '… >= 1'")
    if name[0] not in TABLE:
        raise ValueError(f"there is no metric {name[0]}")
    return text


Outcomes = Annotated[frozenset[str], BeforeValidator(_outcomes)]
Sentence = Annotated[str, Field(min_length=10, pattern=r"^[A-Z].*\.$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Strict):
    """How long something may take: `promised` seconds, and `factor` times a control of the same run.

    The control is what a round of requests took at most before the fault, or what a start of the sidecar took.
    """

    promised: float = Field(ge=0)
    control: Literal["round", "start"]
    factor: float = Field(ge=1, le=100)

    def seconds(self, *, round_: float, start: float) -> float:
        """Return the seconds that it may take."""
        return self.promised + self.factor * (start if self.control == "start" else round_)


class Cell(_Strict):
    """The part of a row that `make test-long` runs."""

    phase: Phase
    kind: Kind
    databases: list[Database] = []
    """The first one of the row, unless named."""
    signs: frozenset[Literal["log", "metric", "readyz"]] = frozenset({"log", "metric", "readyz"})
    """What is waited for, of what the row names; some of it takes seconds to show."""


class LeftOut(_Strict):
    """Why a fault is not tried in a phase."""

    left_out: Sentence


class Row(_Strict):
    """One fault: what happens, who does it, and what must be seen."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    group: Group
    what: Sentence
    inject: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    databases: Annotated[list[Database], Field(min_length=1)]
    hold: float = Field(gt=0, le=30, description="seconds that the fault lasts at least")
    expect: Mapping[Phase, Mapping[Kind, Outcomes] | LeftOut]
    noticed: Limit | None
    recovery: Limit
    slowest: Limit | None
    log: str | None
    metric: Annotated[str, BeforeValidator(_metric)] | None
    readyz: Mapping[str, bool] | None
    in_suite: Cell

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        """Give every kind that is not named what `otherwise` says."""
        expect = data.get("expect") if isinstance(data, dict) else None
        if not isinstance(expect, dict):
            return data
        filled = {}
        for phase, cells in expect.items():
            if isinstance(cells, dict) and OTHERWISE in cells:
                rest = {kind.value: cells[OTHERWISE] for kind in Kind}
                cells = rest | {kind: outcome for kind, outcome in cells.items() if kind != OTHERWISE}
            filled[phase] = cells
        return data | {"expect": filled}

    @model_validator(mode="after")
    def _whole(self) -> Row:
        """Want every cell, or the reason why there is none."""
        for phase in Phase:
            cells = self.expect.get(phase)
            if cells is None:
                raise ValueError(f"expect.{phase}: missing; say why with left_out")
            if not isinstance(cells, LeftOut) and (missing := set(Kind) - cells.keys()):
                raise ValueError(f"expect.{phase}: {', '.join(sorted(missing))} missing; name them, or '{OTHERWISE}'")
        if self.in_suite.phase not in self.phases:
            raise ValueError(f"in_suite.phase: {self.in_suite.phase} is left out")
        if other := set(self.in_suite.databases) - set(self.databases):
            raise ValueError(f"in_suite.databases: the row has no {', '.join(sorted(other))}")
        return self

    @property
    def phases(self) -> list[Phase]:
        """The phases in which it is tried."""
        return [phase for phase in Phase if not isinstance(self.expect[phase], LeftOut)]

    @property
    def suite_databases(self) -> list[Database]:
        """The databases on which `make test-long` tries it."""
        return self.in_suite.databases or self.databases[:1]

    def cells(self, phase: Phase) -> Mapping[Kind, frozenset[str]]:
        """Return what must be seen in a phase."""
        cells = self.expect[phase]
        if isinstance(cells, LeftOut):
            raise KeyError(phase)
        return cells


class TableError(Exception):
    """The table cannot be used; every line names row and cell."""


def read(text: str, *, injectors: Mapping[str, object]) -> tuple[Row, ...]:
    """Read a table whose faults these injectors make; raises TableError with all that is wrong."""
    try:
        data = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise TableError(f"no YAML: {error}") from error
    if not isinstance(data, list) or not data:
        raise TableError("a list of rows is expected")
    rows: list[Row] = []
    errors: list[str] = []
    for number, entry in enumerate(data, 1):
        name = entry.get("id", number) if isinstance(entry, dict) else number
        try:
            row = Row.model_validate(entry)
        except ValidationError as error:
            errors += [f"{name}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            continue
        if row.inject not in injectors:
            errors.append(f"{name}: inject: nobody makes {row.inject!r}; there are {', '.join(sorted(injectors))}")
        rows.append(row)
    errors += [f"{name}: id: stands {times} times" for name, times in Counter(row.id for row in rows).items() if times > 1]
    unused = set(injectors) - {row.inject for row in rows} if not errors else set()
    errors += [f"{name}: an injector without a row" for name in sorted(unused)]
    if errors:
        raise TableError("\n".join(errors))
    return tuple(rows)
