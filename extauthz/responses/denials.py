"""What a client gets for a denial, as plain values: HTTP status, headers and body.

Everything goes by the public name of a reason: a company's own answer cannot tell apart what is one answer to the client.
"""

from __future__ import annotations

import html
import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple

from extauthz.core.model import ALLOWING, Deny, Reason
from extauthz.responses.client_headers import ClientHeaders

REALM = "extauthz"
MAX_NAMED = 512
"""Characters of scopes that the usual message, or a challenge, names."""
GRPC_CODES = {400: 3, 401: 16, 403: 7, 500: 13, 503: 14}
STATUSES = (400, 401, 403, 404, 429, 503)
"""What may stand in the place of a reason's own HTTP status."""
VARIABLES = ("reason", "message", "decision_id", "realm", "scope")
PUBLIC_REASONS = {reason.public_name: reason for reason in reversed(Reason) if reason not in ALLOWING}
"""The public names of reasons, each with the first reason behind it."""

_CHALLENGED = (400, 401, 403)
_RETRIED = (429, 503)
_ERRORS = {400: "invalid_request", 401: "invalid_token", 403: "access_denied", 500: "server_error", 503: "temporarily_unavailable"}
_NO_ERROR_CODE = frozenset({Reason.CREDENTIAL_MISSING, Reason.SCHEME_UNSUPPORTED})
_JSON_TYPE = re.compile(r"[^;]*[/+]json *(?:;.*)?").fullmatch
_MARKUP_TYPE = re.compile(r"[^;]*[/+](?:html|xml) *(?:;.*)?").fullmatch


class Template(string.Template):
    """Text with variables like ${reason}; $${ stands for the characters ${, and any other $ for itself."""

    pattern = r"\$(?:(?P<escaped>\$(?=\{))|\{(?P<braced>[^{}]*)\}|(?P<invalid>(?=\{))|(?P<named>(?!)))"  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        """Read a text; raise ValueError where ${ is not closed. Which names there are is not looked at."""
        super().__init__(text)
        if not self.is_valid():
            raise ValueError("'${' begins a variable, like ${reason}: close it with '}', or write '$${' for these characters")

    def filled(self, values: Mapping[str, str], escape: Callable[[str], str] = str) -> str:
        """Return the text with the values in the places of their names."""
        return self.substitute({name: escape(values[name]) for name in self.get_identifiers()})


class Format(StrEnum):
    """How the body of a denial is written: JSON of our own, or RFC 9457 problem details."""

    JSON = "json"
    PROBLEM = "problem"

    @property
    def content_type(self) -> str:
        """The media type."""
        return "application/json" if self is Format.JSON else "application/problem+json"


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What a company puts in the place of the usual answer for one reason; what is None stays as it is.

    A `body` without text is no body. `content_type` is that of `body`; None: that of the format.
    """

    status: int | None = None
    message: Template | None = None
    headers: tuple[tuple[str, Template], ...] = ()
    content_type: str | None = None
    body: Template | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """How denials are answered; `reasons` is keyed by public names.

    `retry_after` is in seconds. `resource_metadata` is the address of RFC 9728 5.1.
    """

    format: Format = Format.JSON
    resource_metadata: str | None = None
    retry_after: int = 1
    reasons: Mapping[str, OwnAnswer] = field(default_factory=dict)


class ClientAnswer(NamedTuple):
    """One denial: HTTP status, headers in their order, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


class Denials:
    """Words denials; `realm` goes into WWW-Authenticate, `headers` are named where they are."""

    def __init__(self, realm: str, answers: Answers, headers: ClientHeaders = ClientHeaders()) -> None:  # noqa: B008 - frozen
        """Keep the settings."""
        self._realm = realm
        self._answers = answers
        self._headers = headers
        self._messages = {reason: reason.message for reason in Reason} | headers.messages()

    def answer(self, decision: Deny, decision_id: str, *, grpc: bool = False, filtered: bool = False) -> ClientAnswer:
        """Return what the client gets.

        With `grpc` it is for a client of which Envoy makes trailers only: the status is the reason's own, the body the message.
        With `filtered` headers of the request did not arrive, which the usual message of a refusal for want of one says.
        """
        reason = decision.reason
        own = self._answers.reasons.get(reason.public_name, _USUAL)
        status = reason.status if grpc or own.status is None else own.status
        values = self._values(decision, decision_id, own, filtered=filtered)
        headers = [("cache-control", "no-store"), (self._headers.decision_id, decision_id)]
        if challenge := self._challenge(decision, status):
            headers.append(("www-authenticate", challenge))
        if status in _RETRIED:
            headers.append(("retry-after", str(self._answers.retry_after)))
        if grpc:
            headers.append(("grpc-status", str(GRPC_CODES[reason.status])))
            body = f"{values['message']} (decision {decision_id})"
        else:
            content_type = own.content_type or self._answers.format.content_type
            body = own.body.filled(values, _escape_for(content_type)) if own.body else self._usual_body(reason, status, values)
            if body:
                headers.append(("content-type", content_type))
        headers += [(name, value.filled(values).strip(" ")) for name, value in own.headers]
        return ClientAnswer(status, tuple(headers), body)

    def _values(self, decision: Deny, decision_id: str, own: OwnAnswer, *, filtered: bool) -> dict[str, str]:
        values = {"reason": decision.reason.public_name, "decision_id": decision_id, "realm": self._realm}
        values["scope"] = " ".join(decision.scopes)
        usual = self._messages[decision.reason]
        if decision.scopes and not own.message:
            usual = _naming(usual, decision)
        if filtered and decision.reason.public_name in _FOR_WANT_OF_A_HEADER:
            usual = f"{usual} {FILTERED}"
        values["message"] = own.message.filled(values) if own.message else usual
        return values

    def _usual_body(self, reason: Reason, status: int, values: Mapping[str, str]) -> str:
        scope = {"scope": values["scope"]} if values["scope"] else {}
        cause = {"error": _error(reason), "reason": reason.public_name, **scope}
        if self._answers.format is Format.JSON:
            return json.dumps({**cause, "message": values["message"], "decision_id": values["decision_id"]})
        # RFC 9457 4.2.1: about:blank says that there is nothing more to the type than the status.
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": values["message"]}
        return json.dumps({**problem, **cause, "decision_id": values["decision_id"]})

    def _challenge(self, decision: Deny, status: int) -> str | None:
        """Return WWW-Authenticate as RFC 6750 3 asks for it; None where another credential would not help, or must not be named.

        An answer of a company's own that is a 401 has a challenge whatever its reason (RFC 9110 15.5.2).
        """
        reason = decision.reason
        names = " ".join(decision.scopes) if reason is Reason.SCOPE_MISSING else ""
        scopes = f', scope="{names}"' if 0 < len(names) <= MAX_NAMED else ""  # longer headers are refused by clients
        coded = reason.status in (400, 401) or reason is Reason.SCOPE_MISSING
        if status not in _CHALLENGED or not (coded or status == 401):
            return None
        error = f', error="{_error(reason)}"' if coded and reason not in _NO_ERROR_CODE else ""
        metadata = f', resource_metadata="{self._answers.resource_metadata}"' if self._answers.resource_metadata else ""
        return f'Bearer realm="{self._realm}"{error}{scopes}{metadata}'


_USUAL = OwnAnswer()
FILTERED = "Headers of this request did not reach the check: allowed_headers of Envoy's ext_authz filter keeps them back."
_FOR_WANT_OF_A_HEADER = frozenset({"credential_missing", "act_as_missing", "token_invalid"})


def _naming(message: str, decision: Deny) -> str:
    """Add the scopes to the message, unless they are longer than what anybody reads in a sentence."""
    names = ", ".join(decision.scopes)
    one_of = "one of " if decision.any_scope and len(decision.scopes) > 1 else ""
    return message if len(names) > MAX_NAMED else f"{message.removesuffix('.')}: {one_of}{names}."


def is_json(content_type: str) -> bool:
    """Tell whether bodies of this type are JSON (RFC 6839 3.1)."""
    return _JSON_TYPE(content_type) is not None


def _error(reason: Reason) -> str:
    if reason is Reason.CREDENTIAL_MISSING:
        return "authentication_required"
    return "insufficient_scope" if reason is Reason.SCOPE_MISSING else _ERRORS[reason.status]


def _escape_for(content_type: str) -> Callable[[str], str]:
    if is_json(content_type):
        return _within_json
    return html.escape if _MARKUP_TYPE(content_type) else str


def _within_json(text: str) -> str:
    return json.dumps(text)[1:-1]
