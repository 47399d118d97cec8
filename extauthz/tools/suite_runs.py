"""Cases of test suites, decided by the steps that serve, and compared with what they expect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from extauthz.adapters.envoy.codec import is_grpc
from extauthz.config.loader import Configuration
from extauthz.core.credentials import AUTHORIZATION, Credential
from extauthz.core.model import DECISION_ID, Decision, Deny, Identity, Reason, Request
from extauthz.responses.client_headers import ClientHeaders
from extauthz.responses.denials import ClientAnswer, Denials
from extauthz.tools.calls import decided, headers_for_upstream, request_of
from extauthz.tools.suite_cases import SuiteCase, unwired
from extauthz.tools.suite_text import TOKEN_MARK

_BEARER = "Bearer "


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A part of an answer that is not as expected; None stands for what is not there."""

    field: str
    expected: object
    found: object


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What became of a case: its decision, None where none was made, and what is wrong with it.

    `error` tells why the case could not be decided.
    """

    case: SuiteCase
    decision: Decision | None
    differences: tuple[Mismatch, ...] = ()
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Tell whether everything is as expected."""
        return self.error is None and not self.differences


class _RealToken(Exception):
    """A token that nobody described, which only a store or an issuer could verify."""


class CaseAnswer:
    """What becomes of a request: its decision, and what the upstream or the client gets."""

    def __init__(self, request: Request, decision: Decision, denials: Denials, token: str = "") -> None:
        """Keep the parts; `token` is that of a described caller."""
        self.request, self.decision = request, decision
        self._denials, self._token = denials, token

    @cached_property
    def refusal(self) -> ClientAnswer | None:
        """What the client gets; None for what is forwarded."""
        if not isinstance(self.decision, Deny):
            return None
        return self._denials.answer(self.decision, DECISION_ID, grpc=is_grpc(self.request.header("content-type")))

    @cached_property
    def forwarded(self) -> Mapping[str, str] | None:
        """The headers that the upstream gets, with TOKEN_MARK for the token; None for what is refused."""
        headers = headers_for_upstream(self.request, self.decision)
        if headers is None:
            return None
        if self._token and AUTHORIZATION in headers:
            headers[AUTHORIZATION] = headers[AUTHORIZATION].replace(self._token, TOKEN_MARK)
        return {name: unwired(value) for name, value in headers.items()}

    @property
    def status(self) -> int:
        """The HTTP status of a refusal; 200 stands for that of the upstream."""
        return self.refusal.status if self.refusal else 200

    def differences(self, expected: Mapping[str, object]) -> Iterator[Mismatch]:
        """Yield what is not as expected; what is not written is not looked at."""
        for name, wanted in expected.items():
            match name:
                case "headers":
                    yield from _compared("headers", _mapping(wanted), self.forwarded)
                case "response_headers":
                    yield from _compared("response_headers", _mapping(wanted), dict(self.refusal.headers) if self.refusal else None)
                case "absent":
                    yield from self._absent(wanted)
                case "body":
                    yield from self._body(wanted)
                case _ if (found := _PARTS[name](self)) != wanted:
                    yield Mismatch(name, wanted, found)

    def _absent(self, names: object) -> Iterator[Mismatch]:
        if self.forwarded is None:
            yield Mismatch("absent", names, None)
            return
        for name in names if isinstance(names, list) else ():
            if name in self.forwarded:
                yield Mismatch(f"headers.{name}", None, self.forwarded[name])

    def _body(self, wanted: object) -> Iterator[Mismatch]:
        body = self.refusal.body if self.refusal else None
        if not isinstance(wanted, dict):
            if body != wanted:
                yield Mismatch("body", wanted, body)
            return
        try:
            members = json.loads(body or "")
        except ValueError:
            members = None
        if isinstance(members, dict):
            yield from _compared("body", wanted, members)
        else:
            yield Mismatch("body", wanted, body)


_PARTS: Mapping[str, Callable[[CaseAnswer], object]] = {
    "decision": lambda answer: answer.decision.outcome,
    "reason": lambda answer: answer.decision.reason.value,
    "public_reason": lambda answer: answer.decision.reason.public_name if answer.refusal else None,
    "status": lambda answer: answer.status,
    "route": lambda answer: answer.decision.route,
    "user": lambda answer: answer.decision.user,
}


@dataclass(slots=True)
class Runner:
    """Runs cases on a configuration; `now` is the moment of cases that name none, in seconds since the epoch."""

    configuration: Configuration
    now: float
    _denials: Denials = field(init=False)

    def __post_init__(self) -> None:
        """Make what words denials."""
        settings = self.configuration.settings
        headers = ClientHeaders.of(self.configuration.policy, settings.auth_type.oauth, settings.header_names)
        self._denials = Denials(settings.realm, settings.answers.answers, headers)

    def run(self, cases: Iterable[SuiteCase]) -> Iterator[Result]:
        """Yield the result of each case."""
        for case in cases:
            try:
                answer = self.answer(case)
            except _RealToken:
                message = "tokens are not verified here: say in `who` whose token it is, and write ${token} in its place"
                yield Result(case, None, error=message)
                continue
            yield Result(case, answer.decision, tuple(answer.differences(case.expected)))

    def answer(self, case: SuiteCase) -> CaseAnswer:
        """Decide a case; raises an exception of our own for a token that nobody described."""
        policy, by = self.configuration.policy, case.call.caller
        request = request_of(policy, case.call)
        token = request.header(AUTHORIZATION).removeprefix(_BEARER) if by.kind is not None else ""
        own = {name: value.replace(TOKEN_MARK, token) for name, value in case.call.headers.items()}
        # What a case writes itself counts, as a scheme in another letter case or a wrong kind of token.
        request = replace(request, headers={**request.headers, **own})

        def described(credential: Credential) -> Identity | Reason:
            if not token or token not in credential.token or by.evidence is None:
                raise _RealToken
            return by.evidence

        decision = decided(policy, request, described, self.now if case.now is None else case.now)
        return CaseAnswer(request, decision, self._denials, token)


def _compared(part: str, wanted: Mapping[str, object], found: Mapping[str, object] | None) -> Iterator[Mismatch]:
    if found is None:
        yield Mismatch(part, dict(wanted), None)
        return
    for name, value in wanted.items():
        if found.get(name) != value:
            yield Mismatch(f"{part}.{name}", value, found.get(name))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
