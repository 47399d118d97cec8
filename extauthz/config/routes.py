"""Route files, each line validated alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from extauthz.config import document, monitor
from extauthz.config.document import Document, KeyPath, dotted
from extauthz.config.files import Files
from extauthz.config.internal_token import Audience
from extauthz.config.lints import Lint
from extauthz.config.messages import problems_of, unknown_scope
from extauthz.config.monitor import Mode
from extauthz.config.pacing import paced
from extauthz.config.patterns import parse_match
from extauthz.config.scope_names import Scope
from extauthz.config.upstream import UpstreamSection
from extauthz.config.values import Section, Yes
from extauthz.config.vocabulary import scope
from extauthz.config.wording import bounded_hints
from extauthz.core.model import AuthType
from extauthz.core.policy import canonical_host
from extauthz.core.routes import ACCEPTED_BY_DEFAULT, Route
from extauthz.core.upstream import STRICT, Upstream
from extauthz.errors import Problem

_KINDS = ("scope", "all_of", "any_of", "public", "deny")
_HOST_CHARACTERS = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]").fullmatch


def _host(host: str) -> str:
    if canonical_host(host) != host or not _HOST_CHARACTERS(host):
        raise ValueError(f"{host!r} is not a canonical host: write one whole name in lower case, without port, final dot and '*'")
    return host


class RouteLine(Section):
    """One line of a route file."""

    match: str = Field(examples=['match: "GET /items/{id}"'])
    scope: Scope | None = None
    all_of: list[Scope] | None = Field(default=None, min_length=1)
    any_of: list[Scope] | None = Field(default=None, min_length=1)
    public: Yes | None = None
    deny: Yes | None = None
    anonymous: bool = False
    encoded_slashes: bool = False
    accept: list[Literal["oauth", "global", "user", "anonymous"]] | None = Field(default=None, min_length=1)
    audience: Audience | None = None
    mode: Mode | None = None
    name: str | None = Field(default=None, min_length=1, max_length=200)

    @field_validator("match")
    @classmethod
    def _readable(cls, text: str) -> str:
        parse_match(text)
        return text

    @model_validator(mode="after")
    def _one_kind(self) -> RouteLine:
        contradiction = _contradiction(dict(self))
        if contradiction:
            raise ValueError(contradiction)
        return self

    @property
    def scopes(self) -> list[str]:
        """The scopes that the line asks for."""
        return [self.scope] if self.scope else list(self.all_of or self.any_of or ())


class RouteFile(Section):
    """The keys of a route file besides its routes."""

    routes: list[object] = Field(examples=['routes: [{match: "GET /items/{id}", scope: SEARCH}]'])
    hosts: list[Annotated[str, AfterValidator(_host)]] = Field(default_factory=list, examples=["hosts: [api.acme.com]"])
    preflight: bool = False
    upstream: UpstreamSection | None = None
    audience: Audience | None = None


@dataclass(frozen=True, slots=True)
class LocatedRoute:
    """A route, where it stands, and its own mode; `upstream` is None in a file that does not say how its upstream reads."""

    route: Route
    document: Document
    index: int
    hosts: tuple[str, ...]
    mode: Mode | None
    upstream: Upstream | None = None
    audience: str | None = None

    @property
    def reading(self) -> Upstream:
        """How the upstream reads, as far as the file says."""
        return self.upstream or STRICT

    @property
    def place(self) -> str:
        """The file and line."""
        return self.problem("").place

    def problem(self, message: str, key: str = "match", *, name: str = "") -> Problem:
        """Describe a problem of this route; `name` is that of a lint."""
        return self.document.problem(("routes", self.index, key), message, name)


@bounded_hints()
def read(file: Path, vocabulary: Iterable[str], files: Files | None = None) -> tuple[list[LocatedRoute], list[Problem]]:
    """Read one route file; each line that is right is returned, each problem is listed."""
    source = document.read(file, files)
    if not isinstance(source.data, dict):
        example = str(RouteFile.model_fields["routes"].examples[0])  # type: ignore[index]
        return [], source.problems or [source.problem((), f"write a mapping with the key routes, like {example}")]
    problems = list(source.problems)
    try:
        head = RouteFile.model_validate(source.data)
    except ValidationError as error:
        problems += problems_of(error, source, RouteFile)
        head = _usable_head(source.data)
    scopes = dict.fromkeys(vocabulary)
    around_unread = {path[:end] for path in source.unread for end in range(len(path) + 1)}
    placed = []
    for index, entry in paced(enumerate(head.routes)):
        path: KeyPath = ("routes", index)
        unknown = [*_unknown_scopes(source, path, entry, scopes)]
        problems += unknown
        try:
            line = RouteLine.model_validate(entry, context=scopes)
        except ValidationError as error:
            wrong = [*problems_of(error, source, RouteLine, path), *_hidden_contradiction(error, source, path, entry)]
            # What a value that could not be read contradicts is not known.
            problems += [problem for problem in wrong if path not in around_unread or problem.path != dotted(path)]
            continue
        if not unknown:
            upstream = head.upstream.reading if head.upstream else None
            route = _route(line, upstream or STRICT, preflight=head.preflight)
            placed.append(
                LocatedRoute(route, source, index, tuple(head.hosts), line.mode, upstream, line.audience or head.audience)
            )
    return placed, problems


def _usable_head(data: dict[str, object]) -> RouteFile:
    """Return what can be compared with other files: not a file whose hosts or whose upstream are wrong."""
    lines, hosts = data.get("routes"), data.get("hosts")
    names = [host for host in hosts if isinstance(host, str)] if isinstance(hosts, list) else []
    lines = lines if isinstance(lines, list) else []
    upstream = None
    with contextlib.suppress(ValidationError):
        upstream = UpstreamSection.model_validate(data.get("upstream"))
    if ("hosts" in data and not names) or ("upstream" in data and upstream is None):
        names = ["?"]
    return RouteFile.model_construct(routes=lines, hosts=names, preflight=False, upstream=upstream, audience=None)


def _unknown_scopes(source: Document, path: KeyPath, entry: object, vocabulary: Collection[str]) -> Iterator[Problem]:
    """Yield the scopes of a line that the vocabulary lacks, whatever else is wrong with it; without a vocabulary there are none."""
    for place, text in _scope_names(entry) if vocabulary else ():
        with contextlib.suppress(ValueError):
            name = scope(text, vocabulary)
            if name not in vocabulary:
                yield source.problem((*path, *place), unknown_scope(name, vocabulary))


def _scope_names(entry: object) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(entry, dict):
        yield ("scope",), entry.get("scope")
        for key in ("all_of", "any_of"):
            names = entry.get(key)
            for index, name in enumerate(names if isinstance(names, list) else ()):
                yield (key, index), name


def _contradiction(line: Mapping[str, object]) -> str | None:
    """Tell what is wrong with the keys of a line as a whole."""
    kinds = [kind for kind in _KINDS if line.get(kind) is not None]
    if len(kinds) != 1:
        listing = " and ".join(kinds) or "none of them"
        return f"write exactly one of {', '.join(_KINDS)}; here is {listing}"
    if kinds[0] in ("public", "deny") and (line.get("anonymous") or line.get("accept") or line.get("audience")):
        return f"{kinds[0]} needs no token: leave accept, anonymous and audience out"
    if kinds[0] == "deny" and line.get("mode") == "monitor":
        return "a denied route is refused in every mode: leave mode out"
    if line.get("encoded_slashes") and (kinds[0] == "deny" or "{" not in str(line.get("match"))):
        why = "a denied route refuses every path" if kinds[0] == "deny" else "only a {parameter} takes them, and match has none"
        return f"nothing uses encoded_slashes, because {why}: leave it out"
    return None


def _hidden_contradiction(error: ValidationError, source: Document, path: KeyPath, entry: object) -> Iterator[Problem]:
    """Yield the contradiction that the model does not come to when a key is wrong; an unknown key may be the missing one."""
    details = error.errors(include_url=False)
    is_listed = any(detail["type"] == "extra_forbidden" or not detail["loc"] for detail in details)
    contradiction = _contradiction(entry) if isinstance(entry, dict) and not is_listed else None
    if contradiction:
        yield source.problem(path, contradiction)


def monitored(placed: list[LocatedRoute], everywhere: Mode, source: Document) -> tuple[frozenset[str | None], list[Problem]]:
    """Return what Policy.monitored holds, and a warning when that is anything; `source` is extauthz.yaml."""
    refusing = [entry for entry in placed if not entry.route.deny]
    names = monitor.monitored(((entry.route.name, entry.mode) for entry in refusing), everywhere)
    first = next((entry for entry in refusing if entry.mode == "monitor"), None)
    text = monitor.warning(names, len(placed))
    if everywhere == "monitor":
        return names, [source.problem(("mode",), text, Lint.MONITOR_MODE)]
    return names, [first.problem(text, "mode", name=Lint.MONITOR_MODE)] if first else []


def _route(line: RouteLine, upstream: Upstream, *, preflight: bool) -> Route:
    accept = frozenset(AuthType(kind.upper()) for kind in line.accept) if line.accept else ACCEPTED_BY_DEFAULT
    if line.anonymous:
        accept |= {AuthType.ANONYMOUS}
    return Route(
        name=line.name or line.match,
        match=parse_match(line.match).read_by(upstream),
        scopes=tuple(line.scopes),
        any_scope=line.any_of is not None,
        public=bool(line.public),
        deny=bool(line.deny),
        accept=accept,
        preflight=preflight,
        encoded_slashes=line.encoded_slashes,
    )


def useless_audiences(placed: list[LocatedRoute]) -> list[Problem]:
    """Return a warning for the first audience, for a configuration that makes no internal tokens."""
    first = next((entry for entry in placed if entry.audience), None)
    message = "nothing uses it without internal_token in extauthz.yaml: write that section, or leave audience out"
    return [first.problem(message, "audience", name=Lint.USELESS_AUDIENCE)] if first else []
