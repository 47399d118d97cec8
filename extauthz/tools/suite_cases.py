"""Cases of test suites, ready to be decided: `each` written out, callers and times read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from extauthz.config import suites
from extauthz.config.document import KeyPath
from extauthz.config.loader import Configuration
from extauthz.config.patterns import METHODS
from extauthz.config.suites import FILLED, CaseSection, LocatedCase, SuiteFile
from extauthz.config.wording import nearest
from extauthz.core.credentials import AUTHORIZATION
from extauthz.core.model import DECISION_ID, AuthType
from extauthz.errors import ConfigurationError, Problem
from extauthz.responses.denials import Template
from extauthz.tools.callers import NOBODY, Caller, caller
from extauthz.tools.calls import Call
from extauthz.tools.suite_text import TOKEN_MARK

T = TypeVar("T")
MAX_EACH = 100_000
"""Cases that one `each` makes at most."""
HOST = "localhost"
"""The host of requests that name none."""
SUFFIXES = (".yaml", ".yml")

_KINDS = frozenset({"nobody", *(kind.lower() for kind in AuthType)})
_CALLER_EXAMPLE = "define it in `people`, or write a caller like 'GLOBAL scopes=SEARCH'"


@dataclass(frozen=True, slots=True, eq=False)
class SuiteCase:
    """A request, and what is expected of its decision.

    `label` names the case in its file, `now` is in seconds since the epoch, None for the moment of the run. `expected` has what is
    written and nothing else, by the names of ExpectationSection.
    """

    file: str
    line: int
    label: str
    name: str
    call: Call
    now: float | None
    expected: Mapping[str, object]

    @property
    def place(self) -> str:
        """The file and line."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of one file."""

    file: str
    cases: tuple[SuiteCase, ...]


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return the suite files among these paths and below them, each once, sorted within a folder; raises ConfigurationError."""
    found: dict[Path, None] = {}
    problems = []
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()) if path.is_dir() else [path]
        if not inside:
            problems.append(Problem(str(path), 0, "", "no suite is here: `extauthz test --init` writes one"))
        found |= dict.fromkeys(inside)
    if problems:
        raise ConfigurationError(problems)
    return list(found)


def read_suites(files: Sequence[Path], configuration: Configuration) -> list[Suite]:
    """Read suite files for a configuration; raises ConfigurationError with every problem in all of them."""
    read, problems = [], []
    for file in files:
        found, wrong = suites.read(file)
        problems += wrong
        if found is not None:
            reader = _Reader(found, configuration)
            read.append(Suite(str(file), tuple(reader.cases())))
            problems += reader.problems
    if problems:
        raise ConfigurationError(problems)
    return read


@dataclass(slots=True)
class _Reader:
    """Reads the cases of one file; what is wrong with them is in `problems`."""

    source: SuiteFile
    configuration: Configuration
    problems: list[Problem] = field(default_factory=list)
    people: dict[str, Caller] = field(default_factory=dict)
    callers: dict[str, Caller] = field(default_factory=dict)

    def cases(self) -> Iterator[SuiteCase]:
        """Yield every case that is right, `each` written out."""
        for name, words in self.source.people.items():
            self._person(name, words)
        default = None
        if self.source.time is not None:
            default = self._tried(("time",), _moment, self.source.time)
        for located in self.source.cases:
            section, path = located.section, located.path
            count = math.prod(map(len, section.each.values()))
            if count > MAX_EACH:
                self._wrong((*path, "each"), f"makes {count:,} cases, and {MAX_EACH:,} are the most: write fewer")
                continue
            if unused := self._unused(section):
                self._wrong((*path, "each", unused), f"no text of the case says ${{{unused}}}: write it where it belongs")
                continue
            for places in itertools.product(*(range(len(texts)) for texts in section.each.values())):
                case = self._case(located, dict(zip(section.each, places, strict=True)), default)
                if case is not None:
                    yield case

    def _case(self, located: LocatedCase, places: Mapping[str, int], default: float | None) -> SuiteCase | None:
        """Return the case for these places in the lists of `each`, or None if something is wrong with it."""
        section = located.section
        before = len(self.problems)
        values = {name: section.each[name][place] for name, place in places.items()}

        def path(key: str) -> KeyPath:
            return (*located.path, "each", key, places[key]) if key in places else (*located.path, key)

        def text(key: str) -> str | None:
            written = values[key] if key in places else getattr(section, key)
            return None if written is None else self._filled(path(key), written, values)

        request, who, act_as, host, moment = map(text, FILLED)
        method, target = self._tried(path("request"), _request, request or "") or ("", "")
        by = self._tried(path("who"), self._caller, who) if who is not None else NOBODY
        now = default if moment is None else self._tried(path("time"), _moment, moment)
        headers = self._headers(located, act_as, by, values)
        expected = self._expected(located, values)
        name = self._filled(path("name"), section.name, values) if section.name is not None else None
        if len(self.problems) > before or by is None:
            return None
        host = self.source.host if host is None else host
        call = Call(method, wire(target), wire(HOST if host is None else host), headers, by)
        line = self.source.document.problem(located.path, "").line
        label = f"cases[{located.index}]" + "".join(f"[{place}]" for place in places.values())
        return SuiteCase(self.source.document.file, line, label, name or _name(method, target, who, act_as), call, now, expected)

    def _headers(self, located: LocatedCase, act_as: str | None, by: Caller | None, values: Mapping[str, str]) -> dict[str, str]:
        path: KeyPath = (*located.path, "headers")
        filled = {
            name: self._filled((*path, name), value, {**values, "token": TOKEN_MARK})
            for name, value in located.section.headers.items()
        }
        if by is not None and by.kind is None and any(TOKEN_MARK in value for value in filled.values()):
            self._wrong(path, "nobody sends a token: write `who` beside ${token}")
        if by is not None and by.kind is not None and TOKEN_MARK not in filled.get(AUTHORIZATION, TOKEN_MARK):
            self._wrong((*path, AUTHORIZATION), "`who` sends a token: write ${token} in its place, or leave one of the two out")
        name = self.configuration.policy.act_as.headers[0]
        if act_as is not None:
            if name in filled:
                self._wrong((*path, name), "is the header of `act_as`, which is written too: keep one")
            filled[name] = act_as
        return {name: TOKEN_MARK.join(map(wire, value.split(TOKEN_MARK))) for name, value in filled.items()}

    def _expected(self, located: LocatedCase, values: Mapping[str, str]) -> dict[str, object]:
        section = located.section.expect
        path: KeyPath = (*located.path, "expect")
        known = {**values, "decision_id": DECISION_ID, "token": TOKEN_MARK}

        def filled(place: KeyPath, value: object) -> object:
            if isinstance(value, str):
                return self._filled(place, value, known)
            if isinstance(value, dict):
                return {key: filled((*place, key), item) for key, item in value.items()}
            return value

        expected = {name: filled((*path, name), getattr(section, name)) for name in section.model_fields_set}
        for name, read in (("reason", suites.reason), ("public_reason", suites.public_reason)):
            if isinstance(text := expected.get(name), str):
                self._tried((*path, name), read, text)
        return expected

    def _filled(self, path: KeyPath, text: str, values: Mapping[str, str]) -> str:
        """Put values into the places of their names, like ${who}; $${ stands for the characters ${."""
        if "$" not in text:
            return text
        try:
            template = Template(text)
        except ValueError as error:
            self._wrong(path, str(error))
            return text
        if unknown := next((name for name in template.get_identifiers() if name not in values), None):
            hint = nearest(unknown, values) or ": write it into `each`, or $${ for these characters"
            self._wrong(path, f"unknown variable ${{{unknown}}}{hint}")
            return text
        return template.filled(values)

    def _person(self, name: str, words: str) -> None:
        if name.split()[0].lower() in _KINDS:
            self._wrong(("people", name), f"{name.split()[0]!r} begins a caller in words: choose another name")
            return
        # A person who is wrong is one problem, and not one of every case besides.
        self.people[name] = NOBODY
        found = self._tried(("people", name), self._in_words, words)
        if found is not None:
            self.people[name] = found

    def _caller(self, text: str) -> Caller:
        if text in self.people:
            return self.people[text]
        if text not in self.callers:
            first = (text.split() or [""])[0].lower()
            if first not in _KINDS and "=" not in text:
                raise ValueError(f"nobody here is called {text!r}{nearest(text, self.people) or f': {_CALLER_EXAMPLE}'}")
            self.callers[text] = self._in_words(text)
        return self.callers[text]

    def _in_words(self, text: str) -> Caller:
        return caller(text, self.configuration.settings.scopes, self.configuration.providers)

    def _tried(self, path: KeyPath, read: Callable[[str], T], text: str) -> T | None:
        """Read a text; None, and a problem, where that cannot be done."""
        try:
            return read(text)
        except ValueError as error:
            self._wrong(path, str(error))
            return None

    def _unused(self, section: CaseSection) -> str | None:
        """Return a variable that nothing in a case uses: all its cases would be the same one."""
        names = [name for name in section.each if name not in FILLED]
        text = section.model_dump_json() if names else ""
        return next((name for name in names if f"${{{name}}}" not in text), None)

    def _wrong(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.source.document.problem(path, message))


def wire(text: str) -> str:
    """Return a text as requests of the core hold it: the bytes of UTF-8, each read as Latin-1."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def unwired(text: str) -> str:
    """Return what `wire` was given; bytes that are no UTF-8 stay as they are."""
    try:
        return text if text.isascii() else text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _name(method: str, target: str, who: str | None, act_as: str | None) -> str:
    """Name a case that has no name by its request; the query may hold what nobody should read."""
    path, mark, _ = target.partition("?")
    parts = [f"{method} {path}{mark and '?…'}", f"as {who or 'nobody'}"]
    return ", ".join([*parts, f"for {act_as}"] if act_as else parts)


def _request(text: str) -> tuple[str, str]:
    method, space, target = text.partition(" ")
    if method not in METHODS:
        hint = nearest(method, METHODS) or ": write a method in upper case, one space and a path, like GET /items/7"
        raise ValueError(f"{method!r} is no method{hint}")
    if not space or not target or target.strip(" \t") != target:
        raise ValueError(f"{text!r}: write a method, one space and a path, like GET /items/7")
    return method, target


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: write one like 2027-01-31T12:00:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
