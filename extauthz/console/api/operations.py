"""What an operation of the API is, what it gets, and what it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter

from extauthz.admin.administration import Administration
from extauthz.admin.rights import Actor, Operation
from extauthz.admin.route_map import RouteMap
from extauthz.config.loader import Configuration
from extauthz.console.api.problems import ApiProblem
from extauthz.console.api.values import BodyModel, NoQuery
from extauthz.console.collecting import Collector

BASE = "/api/v1"
IDEMPOTENCY_KEY, IF_MATCH = "Idempotency-Key", "If-Match"


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request that was read, and whose sender may do this in general; `at` is in seconds since the epoch."""

    administration: Administration
    configuration: Configuration
    route_map: RouteMap
    collector: Collector
    actor: Actor
    at: int
    path: Mapping[str, str]
    query: Any
    headers: Mapping[str, str]
    body: Any = None


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """What was done; `pages` are what else the parameters of the pages behind (`next`) and before (`prev`) this one are."""

    content: BaseModel
    headers: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


Outcome = ApiAnswer | ApiProblem


@dataclass(frozen=True, slots=True)
class HeaderParameter:
    """A header that an operation reads."""

    name: str
    meaning: str
    pattern: str | None = None
    is_required: bool = False

    @property
    def place(self) -> str:
        """Where an error in it is."""
        return f"header/{self.name.lower()}"


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One row of the table. `act` blocks, unless it is a coroutine function; `needs` is what its sender must be allowed to do.

    Of tokens that is meant of some at least: an act looks at the token itself.

    `path` is behind BASE. `problems` are the statuses that it answers beside those that every operation may answer.
    """

    name: str
    method: str
    path: str
    summary: str
    act: Callable[[ApiRequest], Outcome] | Callable[[ApiRequest], Awaitable[Outcome]]
    answer: type[BaseModel]
    needs: Operation = Operation.READ
    status: HTTPStatus = HTTPStatus.OK
    body: TypeAdapter[Any] | None = None
    query: type[BodyModel] = NoQuery
    headers: tuple[HeaderParameter, ...] = ()
    answer_headers: tuple[str, ...] = ()
    problems: tuple[HTTPStatus, ...] = ()


def is_expected(request: ApiRequest, etag: str) -> bool:
    """Tell whether a request is meant for what has this ETag now (RFC 9110 13.1.1); one without If-Match is."""
    return not is_conditional(request) or etag in _tags(request)


def is_conditional(request: ApiRequest) -> bool:
    """Tell whether a request is meant for one state of a thing alone, and not for whatever it is by now."""
    return "*" not in _tags(request)


def _tags(request: ApiRequest) -> list[str]:
    return [tag.strip() for tag in request.headers.get(IF_MATCH, "*").split(",")]
