"""What the API answers when it does not do what was asked: problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.responses import Response

from extauthz.admin.outcomes import Refused

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong: where, like `body/scopes/0`, `query/limit` or `header/if-match`, and a sentence for people."""

    at: str
    detail: str


@dataclass(frozen=True, slots=True)
class ApiProblem:
    """Why nothing was done; `more` are members beside those of RFC 9457."""

    status: HTTPStatus
    detail: str
    errors: tuple[FieldError, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_fields(cls, status: HTTPStatus, errors: Iterable[FieldError]) -> ApiProblem:
        """Return the problem of what is wrong with a request; there is at least one error."""
        found = tuple(errors)
        return cls(status, "; ".join(f"{error.at}: {error.detail}" for error in found), found)

    @classmethod
    def of_refusal(cls, status: HTTPStatus, refused: Refused, places: Mapping[str, str] | None = None) -> ApiProblem:
        """Return the problem of what a use case refused; `places` are those of its fields, where the request has them."""
        named = places or {}
        errors = tuple(FieldError(named[item.field], item.message) for item in refused.refusals if item.field in named)
        return cls(status, "; ".join(item.message for item in refused.refusals), errors)


def response(problem: ApiProblem) -> Response:
    """Write a problem."""
    members = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        **({"errors": [{"at": error.at, "detail": error.detail} for error in problem.errors]} if problem.errors else {}),
        **problem.more,
    }
    headers = {"cache-control": "no-store", **problem.headers}
    return Response(json.dumps(members), problem.status.value, headers, media_type=CONTENT_TYPE)
