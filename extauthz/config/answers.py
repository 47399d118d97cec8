"""The answers section of extauthz.yaml: how denials are answered, and what a company says in its own words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from extauthz.config.document import Document, KeyPath
from extauthz.config.units import duration
from extauthz.config.values import DURATION, Section, WrittenAs, exact, text
from extauthz.config.wording import nearest
from extauthz.core.identity import IdentityHeaders
from extauthz.core.model import DECISION_ID, Deny, Reason
from extauthz.errors import Problem
from extauthz.responses.denials import (
    PUBLIC_REASONS,
    REALM,
    VARIABLES,
    Answers,
    ClientAnswer,
    Denials,
    Format,
    OwnAnswer,
    Template,
    is_json,
)

MAX_BODY = 8192
"""Bytes; `max_denied_response_body_bytes` of the shipped Envoy configuration cuts off what is longer."""
MAX_MESSAGE = 1024
MAX_HEADERS = 16
MAX_HEADER_VALUE = 1024
MAX_RETRY_AFTER = 86_400.0

_CAUSES = {reason.value: reason.public_name for reason in Reason}
_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}").fullmatch
_WITHOUT_DOLLAR = re.compile(rf"(?<!\$)\{{({'|'.join(VARIABLES)})\}}").search
_PRINTABLE = re.compile(r"[ -~]*").fullmatch
_FRAMING = "belongs to the connection, and Envoy sets it: leave it out"
_RESERVED = {
    **dict.fromkeys(("content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection"), _FRAMING),
    **dict.fromkeys(("te", "trailer", "upgrade", "content-encoding", "host", "date", "server"), _FRAMING),
    "content-type": "is that of the body: write content_type beside headers",
    "cache-control": "is always no-store: leave it out",
    "www-authenticate": "is the challenge of RFC 6750: write realm and answers.resource_metadata",
    "retry-after": "goes with 503 and 429: write answers.retry_after",
}
_RESERVED_PREFIXES = ("grpc-", "x-envoy-")


def _public_name(name: str) -> str:
    if name in PUBLIC_REASONS:
        return name
    if name in _CAUSES and _CAUSES[name] in PUBLIC_REASONS and _CAUSES[name] != name:
        raise ValueError(f"clients are told {_CAUSES[name]!r}, and not which of its causes it was: write the answer for that name")
    raise ValueError(
        "no client is told this reason" + (nearest(name, PUBLIC_REASONS) or ": write one of `told as` in docs/reference.md")
    )


def _header_name(name: str) -> str:
    if not _HEADER_NAME(name):
        lower = f", like {name.lower()!r}" if _HEADER_NAME(name.lower()) else ""
        raise ValueError(f"is not a header name: write up to 64 lower-case letters, digits and '-'{lower}")
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        raise ValueError(_RESERVED.get(name, "is read by gRPC clients or by Envoy: write another name"))
    return name


def _with_variables(*names: str) -> AfterValidator:
    def check(text: str) -> str:
        if match := _WITHOUT_DOLLAR(text):
            raise ValueError(f"{match[0]} is no variable: write ${match[0]}")
        for name in Template(text).get_identifiers():
            if name not in names:
                hint = f": the variables here are {', '.join(names)}"
                raise ValueError(f"unknown variable ${{{name}}}" + (nearest(name, names) or hint))
        return text

    return AfterValidator(check)


def _whole_seconds(seconds: float) -> float:
    if not 1 <= seconds <= MAX_RETRY_AFTER or seconds != int(seconds):
        raise ValueError(f"{seconds:g} seconds: write whole seconds, 1s to 1d")
    return seconds


PublicName = Annotated[str, AfterValidator(_public_name)]
AnswerHeader = Annotated[str, AfterValidator(_header_name)]
HeaderText = Annotated[str, _with_variables(*VARIABLES)]
Message = Annotated[
    str,
    text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,500}", "write one line of 1 to 500 characters"),
    _with_variables(*(name for name in VARIABLES if name != "message")),
]
Body = Annotated[str, text(r"[^\ud800-\udfff]*", "write text"), _with_variables(*VARIABLES)]
MediaType = Annotated[
    str,
    text(
        r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,63}(?:; ?charset=utf-8)?",
        "write a media type in lower case, like text/plain; charset=utf-8",
    ),
]
MetadataAddress = Annotated[
    str,
    text(
        r"https://[A-Za-z0-9.:\[\]-]{1,255}(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,500})?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,500})?",
        "write the https address of the metadata, like https://api.acme.com/.well-known/oauth-protected-resource",
    ),
]
WholeSeconds = Annotated[float, BeforeValidator(duration), AfterValidator(_whole_seconds), WrittenAs(DURATION, only=True)]


class ReasonAnswer(Section):
    """What clients get for one reason; what is left out stays as it is."""

    status: Annotated[Literal[400, 401, 403, 404, 429, 503], exact(400, 401, 403, 404, 429, 503)] | None = None
    message: Message | None = None
    content_type: MediaType | None = None
    headers: dict[AnswerHeader, HeaderText] = Field(default_factory=dict, examples=['headers: {x-hint: "see ${scope}"}'])
    body: Body | None = Field(default=None, examples=['body: \'{"code": "${reason}"}\''])

    @field_validator("headers")
    @classmethod
    def _few(cls, headers: dict[str, str]) -> dict[str, str]:
        if len(headers) > MAX_HEADERS:
            raise ValueError(f"{len(headers)} headers: write at most {MAX_HEADERS}")
        return headers

    @model_validator(mode="after")
    def _says_something(self) -> ReasonAnswer:
        if not self.model_fields_set:
            raise ValueError("is empty: write status, message, headers or body, or leave the reason out")
        return self

    @property
    def own(self) -> OwnAnswer:
        """The same, with its texts read."""
        return OwnAnswer(
            status=self.status,
            message=None if self.message is None else Template(self.message),
            headers=tuple((name, Template(value)) for name, value in self.headers.items()),
            content_type=self.content_type,
            body=None if self.body is None else Template(self.body),
        )


class AnswersSection(Section):
    """How denials are answered."""

    format: Literal["json", "problem"] = "json"
    resource_metadata: MetadataAddress | None = None
    retry_after: WholeSeconds = 1.0
    reasons: dict[PublicName, ReasonAnswer] = Field(
        default_factory=dict, examples=['reasons: {route_unknown: {status: 404, message: "No such page."}}']
    )

    @property
    def answers(self) -> Answers:
        """The same, with its texts read."""
        return Answers(
            format=Format(self.format),
            resource_metadata=self.resource_metadata,
            retry_after=int(self.retry_after),
            reasons={name: answer.own for name, answer in self.reasons.items()},
        )


def misfits(source: Document, scopes: str) -> Iterator[Problem]:
    """Find what shows only in whole answers; `scopes` are the most that a route asks for, with spaces.

    Read from the plain data, reason by reason, so that a problem in one place hides none in another.
    """
    section = source.data.get("answers")
    reasons = section.get("reasons") if isinstance(section, dict) else None
    realm, identity = source.data.get("realm"), source.data.get("identity")
    prefix = identity.get("prefix") if isinstance(identity, dict) else None
    decision_id = f"{prefix or IdentityHeaders().prefix}decision-id"
    for name, entry in reasons.items() if isinstance(reasons, dict) else ():
        for header in _headers(entry):
            if header == decision_id:
                yield source.problem(("answers", "reasons", name, "headers", header), "always holds the decision id: leave it out")
        try:
            answers = AnswersSection.model_validate({"reasons": {name: entry}}).answers
        except ValidationError:
            continue
        for path, message in _misfits(name, answers, realm if isinstance(realm, str) else REALM, scopes):
            yield source.problem(("answers", "reasons", name, *path), message)


def _headers(entry: object) -> list[object]:
    headers = entry.get("headers") if isinstance(entry, dict) else None
    return list(headers) if isinstance(headers, dict) else []


def _misfits(name: str, answers: Answers, realm: str, scopes: str) -> Iterator[tuple[KeyPath, str]]:
    reason, own, denials = PUBLIC_REASONS[name], answers.reasons[name], Denials(realm, answers)
    decision = Deny(reason, scopes=(scopes,) if reason is Reason.SCOPE_MISSING else ())
    answer = denials.answer(decision, DECISION_ID)
    if own.body is not None:
        yield from ((("body",), message) for message in _wrong_body(answer, own))
    elif own.content_type is not None:
        yield ("content_type",), "nothing uses it: write a body, or leave it out"
    if own.message is not None and len(denials.answer(decision, DECISION_ID, grpc=True).body.encode()) > MAX_MESSAGE:
        yield ("message",), f"with its variables it is longer than {MAX_MESSAGE} bytes: write less"
    for header, value in answer.headers[-len(own.headers) :] if own.headers else ():
        if not _PRINTABLE(value):
            yield ("headers", header), "with its variables it is not printable ASCII: write other text"
        if len(value) > MAX_HEADER_VALUE:
            yield ("headers", header), f"with its variables it is longer than {MAX_HEADER_VALUE} bytes: write less"


def _wrong_body(answer: ClientAnswer, own: OwnAnswer) -> Iterator[str]:
    if len(answer.body.encode()) > MAX_BODY:
        yield f"with its variables it is longer than {MAX_BODY} bytes, which is what Envoy passes on: write less"
    if not answer.body:
        if own.content_type is not None:
            yield "is empty, and content_type is that of a body: write one, or leave content_type out"
    elif is_json(dict(answer.headers)["content-type"]):
        try:
            json.loads(answer.body, parse_constant=_no_number)
        except ValueError as error:
            hint = "put variables inside of quotes, or write content_type: text/plain"
            yield f"is not JSON once its variables have values: {hint} ({error})"


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
