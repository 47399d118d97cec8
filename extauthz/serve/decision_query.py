"""Which decisions somebody asks for: the query of an address, as what their records must hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from extauthz.config.wording import nearest
from extauthz.core.model import Reason
from extauthz.telemetry.decision_record import MAX_VALUE, RecordField

MAX_LIMIT, USUAL_LIMIT = 1_000, 100
MAX_QUERY, MAX_PARAMETERS = 8 * 1024, 16
"""Characters, and parameters."""

_REASONS = tuple(reason.value for reason in Reason)
_FIELDS = {"reason": RecordField.REASON, "route": RecordField.ROUTE, "user": RecordField.USER, "id": RecordField.DECISION_ID}
_DECISION_ID = re.compile(r"[0-9a-f]{32}").fullmatch
_NUMBER = re.compile(r"[0-9]{1,9}").fullmatch


class QueryError(ValueError):
    """A query that cannot be answered; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Query:
    """The values that a record must have, by the names of its fields, and the numbers that were asked for, by their names."""

    wanted: Mapping[str, str]
    numbers: Mapping[str, int]


def read_query(text: str, fields: Collection[str], *, texts: Collection[str], numbers: Mapping[str, int]) -> Query:
    """Read a query that may have these `texts` and `numbers`, each with the most that it may be; raises QueryError.

    `fields` are those that records have.
    """
    if len(text) > MAX_QUERY:
        raise QueryError(f"the query is too long: at most {MAX_QUERY:,} characters are read")
    known = (*texts, *numbers)
    wanted: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, value in _pairs(text):
        if name not in known:
            hint = nearest(name, known) or f": write {', '.join(known)}"
            raise QueryError(f"unknown parameter {name!r}{hint}")
        if name in wanted or name in counts:
            raise QueryError(f"{name} is there twice: keep one")
        if name in numbers:
            counts[name] = _number(name, value, numbers[name])
            continue
        wanted[name] = _CHECKED.get(name, _text)(name, value)
        if name in _FIELDS and name != "id" and _FIELDS[name] not in fields:
            raise QueryError(f"decision_log.fields leaves out {name}, so it is not shown here: ask without it")
    return Query({_FIELDS.get(name, name): value for name, value in wanted.items()}, counts)


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="replace")
    except ValueError as error:
        raise QueryError(f"too many parameters: at most {MAX_PARAMETERS} are read") from error


def _number(name: str, value: str, most: int) -> int:
    if not _NUMBER(value) or not 1 <= int(value) <= most:
        raise QueryError(f"{name}={value}: write a number from 1 to {most:,}")
    return int(value)


def _reason(name: str, value: str) -> str:
    if value not in _REASONS:
        raise QueryError(f"{value!r} is no reason{nearest(value, _REASONS) or ': docs/reference.md lists them'}")
    return value


def _decision_id(name: str, value: str) -> str:
    if not _DECISION_ID(value.lower()):
        raise QueryError(f"{name}={value}: write the 32 hex digits of a decision id")
    return value.lower()


def _text(name: str, value: str) -> str:
    if not value or len(value) > MAX_VALUE:
        raise QueryError(f"{name} has {'no value' if not value else 'a value that is too long'}: write 1 to {MAX_VALUE} characters")
    return value.lower() if name == "user" else value


_CHECKED: Mapping[str, Callable[[str, str], str]] = {"reason": _reason, "id": _decision_id}
