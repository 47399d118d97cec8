"""Test suites of a configuration: the YAML of `extauthz test`, each case validated alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from extauthz.config import document
from extauthz.config.document import Document, KeyPath
from extauthz.config.messages import problems_of
from extauthz.config.pacing import paced
from extauthz.config.values import NonEmpty, Section
from extauthz.config.wording import nearest
from extauthz.core.model import ALLOWING, Reason
from extauthz.errors import Problem

DECISIONS = ("allow", "deny", "would_deny")
FILLED = ("request", "who", "act_as", "host", "time")
"""Fields of a case that `each` may hold."""
VARIABLE = "${"
"""What a variable begins with."""
CASE_EXAMPLE = "cases: [{request: GET /items/7, who: nobody, expect: deny}]"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_REASONS = tuple(reason.value for reason in Reason)
_PUBLIC_NAMES = tuple(dict.fromkeys(reason.public_name for reason in Reason if reason not in ALLOWING))


def reason(text: str) -> str:
    """Return the name of a reason; raise ValueError for what is none."""
    if text not in _REASONS:
        raise ValueError(f"unknown reason {text!r}" + (nearest(text, _REASONS) or ": write one like scope_missing"))
    return text


def public_reason(text: str) -> str:
    """Return what a client is told of a reason; raise ValueError for what none is told."""
    if text not in _PUBLIC_NAMES:
        behind = next((f", it is told {one.public_name!r}" for one in Reason if one.value == text and one not in ALLOWING), None)
        hint = behind or nearest(text, _PUBLIC_NAMES) or ": write what a client is told, like token_invalid"
        raise ValueError(f"no client is told {text!r}{hint}")
    return text


def _or_variable(read: Callable[[str], str]) -> AfterValidator:
    """Let a variable stand for a name; what it holds is looked at when it is filled in."""
    return AfterValidator(lambda text: text if VARIABLE in text else read(text))


def _variable(name: str) -> str:
    if not _VARIABLE(name):
        raise ValueError(f"{name!r} is no name of a variable: write letters, digits and '_', a letter first")
    return name


def _header(name: str) -> str:
    if not _HEADER(name):
        raise ValueError(f"{name!r} is no name of a header")
    return name.lower()


def _one_spelling(value: object) -> object:
    """Refuse names of headers that differ in letter case alone."""
    names = [str(name).lower() for name in document.mapping(value)]
    if twice := next((name for index, name in enumerate(names) if name in names[:index]), None):
        raise ValueError(f"the header {twice!r} is written twice: keep one, with a comma between its values")
    return value


def _from_one_word(value: object) -> object:
    """Let a decision or a reason stand for the whole expectation."""
    if not isinstance(value, str):
        return value
    if value not in (*DECISIONS, *_REASONS) and VARIABLE not in value:
        hint = nearest(value, (*DECISIONS, *_REASONS)) or ": write allow, deny, or a reason like scope_missing"
        raise ValueError(f"unknown decision or reason {value!r}{hint}")
    return {"decision" if value in DECISIONS else "reason": value}


def _body(value: object) -> object:
    if not isinstance(value, (str, dict)):
        raise ValueError("write the whole body as text, or the members of its JSON as a mapping")
    return value


Headers = Annotated[dict[Annotated[str, AfterValidator(_header)], str], BeforeValidator(_one_spelling)]
ReasonName = Annotated[str, _or_variable(reason)]
PublicReasonName = Annotated[str, _or_variable(public_reason)]
VariableName = Annotated[str, AfterValidator(_variable)]
Texts = Annotated[list[str], Field(min_length=1)]


class ExpectationSection(Section):
    """What a case expects; only what is written is compared. `headers` and `absent` are what the upstream gets."""

    decision: Literal["allow", "deny", "would_deny"] | None = None
    reason: ReasonName | None = None
    public_reason: PublicReasonName | None = None
    status: int | None = None
    route: str | None = None
    user: str | None = None
    headers: Headers | None = Field(default=None, min_length=1, examples=["headers: {x-extauthz-user: ana@acme.com}"])
    absent: list[Annotated[str, AfterValidator(_header)]] | None = Field(default=None, min_length=1, examples=["absent: [cookie]"])
    response_headers: Headers | None = Field(default=None, min_length=1, examples=["response_headers: {cache-control: no-store}"])
    body: Annotated[object, BeforeValidator(_body)] = None


class CaseSection(Section):
    """One case of a suite."""

    name: NonEmpty | None = None
    request: NonEmpty | None = Field(default=None, examples=["request: GET /items/7?full=1"])
    who: NonEmpty | None = None
    act_as: str | None = None
    host: str | None = None
    time: NonEmpty | None = None
    headers: Headers = Field(default_factory=dict, examples=["headers: {accept: text/html}"])
    each: dict[VariableName, Texts] = Field(default_factory=dict, examples=["each: {who: [ana, bob]}"])
    expect: Annotated[ExpectationSection, BeforeValidator(_from_one_word)] = Field(examples=["expect: allow"])


class SuiteSection(Section):
    """The keys of a suite file besides its cases."""

    people: dict[NonEmpty, NonEmpty] = Field(default_factory=dict, examples=['people: {ana: "oauth user=ana@acme.com"}'])
    host: str | None = None
    time: NonEmpty | None = None
    cases: list[object] = Field(min_length=1, examples=[CASE_EXAMPLE])


@dataclass(frozen=True, slots=True)
class LocatedCase:
    """A case as it is written, and where."""

    section: CaseSection
    index: int

    @property
    def path(self) -> KeyPath:
        """The keys that lead to it."""
        return ("cases", self.index)


@dataclass(frozen=True, slots=True)
class SuiteFile:
    """One file of cases, each of which has the right shape; `people` are callers in words by their names."""

    document: Document
    people: Mapping[str, str]
    host: str | None
    time: str | None
    cases: tuple[LocatedCase, ...]


def read(file: Path) -> tuple[SuiteFile | None, list[Problem]]:
    """Read one suite file: what is right in it, and each problem; None where there is nothing to go on with."""
    source = document.read(file)
    if not isinstance(source.data, dict):
        return None, source.problems or [source.problem((), f"write a mapping with the key cases, like {CASE_EXAMPLE}")]
    problems = list(source.problems)
    lines, head = document.items(source.data.get("cases")), None
    try:
        head = SuiteSection.model_validate(source.data)
    except ValidationError as error:
        problems += problems_of(error, source, SuiteSection)
    cases = []
    for index, entry in paced(enumerate(lines)):
        path: KeyPath = ("cases", index)
        try:
            section = CaseSection.model_validate(entry)
        except ValidationError as error:
            problems += problems_of(error, source, CaseSection, path)
            continue
        if wrong := _contradiction(section):
            problems.append(source.problem((*path, wrong[0]), wrong[1]))
        else:
            cases.append(LocatedCase(section, index))
    if head is None:
        return None, problems
    return SuiteFile(source, head.people, head.host, head.time, tuple(cases)), problems


def _contradiction(case: CaseSection) -> tuple[str, str] | None:
    """Return the key and the message of what is wrong with a case as a whole."""
    expected = case.expect
    written = expected.model_fields_set
    if twice := next((name for name in case.each if name in FILLED and getattr(case, name) is not None), None):
        return twice, f"stands in `each` as well: write {twice} once"
    if case.request is None and "request" not in case.each:
        return "request", "is missing: write it, like request: GET /items/7"
    if not written:
        return "expect", "is empty: write what you expect, like expect: allow"
    if null := next((name for name in written - {"route", "user"} if getattr(expected, name) is None), None):
        return "expect", f"{null} has no value: write one, or leave the key out"
    forwarded = sorted(written & {"headers", "absent"})
    refused = sorted(written & {"public_reason", "response_headers", "body"})
    if forwarded and (expected.decision == "deny" or refused):
        return "expect", f"{forwarded[0]} is what the upstream gets, and a refused request has none: leave it out"
    if refused and expected.decision in ("allow", "would_deny"):
        return "expect", f"{refused[0]} is what a refusal tells the client: leave it out"
    return None
