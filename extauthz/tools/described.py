"""The request that a line of the decision log tells of: what the line keeps, and for the rest what fits its reason.

A line holds no token, no query and no header. So what such a request is explained with is partly assumed, and each assumption is
named in a note.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from extauthz.admin.route_map import routes_of
from extauthz.config.loader import Configuration
from extauthz.core.credentials import AUTHORIZATION, Kind
from extauthz.core.decide import Plan, plan
from extauthz.core.identity import MAX_VALUE
from extauthz.core.model import DECISION_ID, AuthType, Deny, Identity, Reason, Request
from extauthz.core.policy import Policy
from extauthz.core.routes import ANY_METHOD, Route
from extauthz.errors import CallerError, LineError
from extauthz.tools.callers import NOBODY, VERIFYING, Caller, caller
from extauthz.tools.calls import Call, request_of
from extauthz.tools.explain_model import STEP_OF, Step
from extauthz.tools.log_lines import LogLine, RecordedLine

STRANGER = "somebody@host.invalid"
"""Stands for a user whom the log does not name, and for whom no token may act."""
_OTHER_HOST = "other.host.invalid"
_OF_PROVIDERS = frozenset(
    {
        *(Reason.TOKEN_SIGNATURE, Reason.TOKEN_ALGORITHM, Reason.TOKEN_KEY_UNKNOWN, Reason.TOKEN_HEADER_FORBIDDEN),
        *(Reason.TOKEN_ISSUER, Reason.TOKEN_AUDIENCE, Reason.TOKEN_CLIENT, Reason.TOKEN_NOT_YET_VALID),
        *(Reason.TOKEN_CLAIMS_MALFORMED, Reason.TOKEN_KIND_WRONG, Reason.TOKEN_USER_INVALID, Reason.TOKEN_USER_NOT_ALLOWED),
        *(Reason.TOKEN_INACTIVE, Reason.ISSUER_UNAVAILABLE, Reason.KEY_SET_UNAVAILABLE),
    }
)


@dataclass(frozen=True, slots=True)
class DescribedDecision:
    """A decision of the log: the request without what the log does not keep, what verifying its token came to, and the reason.

    `request` is None for one that could not be read; `moment` is when it was decided, in seconds since the epoch, if the line says.
    """

    request: Request | None
    evidence: Identity | Reason | None
    reason: Reason | None
    moment: float | None
    notes: tuple[str, ...] = ()


def described(configuration: Configuration, line: LogLine | RecordedLine) -> DescribedDecision:
    """Return the request of a line; raises LineError where it tells of none."""
    if isinstance(line, RecordedLine):
        return _recorded(configuration, line)
    if not line.reason_name:
        raise LineError("the line has no reason: give one line of a decision log, whose fields decision_log.fields names")
    if line.reason is Reason.REQUEST_MALFORMED:
        return DescribedDecision(None, None, line.reason, line.time)
    # What made a path malformed may have been cut off.
    method, path = line.method, (line.path or "") + ("#" if line.reason is Reason.PATH_MALFORMED else "")
    if not method or not path:
        raise LineError("the line has no method and path: decision_log.fields has to name them")
    described_line = _DescribedLine(configuration.policy, line, method, path)
    request = described_line.request()
    notes = ("The log keeps no query, no header and no token: what follows from these is assumed.", *described_line.notes)
    return DescribedDecision(request, described_line.caller().evidence, line.reason, line.time, notes)


def _recorded(configuration: Configuration, line: RecordedLine) -> DescribedDecision:
    """Return a recorded request, of which nothing has to be assumed."""
    try:
        sender = caller(line.caller, configuration.settings.scopes, configuration.providers)
    except CallerError as error:
        raise LineError(f"the caller of the line does not fit this configuration: {error}") from error
    request = request_of(configuration.policy, Call(line.method, line.path, line.host, line.headers, sender))
    return DescribedDecision(request, sender.evidence, line.reason, line.time)


@dataclass(slots=True)
class _DescribedLine:
    policy: Policy
    line: LogLine
    method: str
    path: str
    notes: list[str] = field(default_factory=list)

    @property
    def reason(self) -> Reason | None:
        """Why it was decided so."""
        return self.line.reason

    def request(self) -> Request:
        """Return the request with the headers and the query that fit the reason."""
        caller, headers, query = self.caller(), self._headers(), _QUERIES.get(self.reason, "")
        types = self.policy.auth_types
        path = f"{self.path}?{query}" if query else self.path
        request = request_of(self.policy, Call(self.method, path, self._host(), headers, caller))
        written = dict(request.headers)
        match self.reason:
            case Reason.SCHEME_UNSUPPORTED:
                written[AUTHORIZATION] = "Basic described"
            case Reason.AUTHORIZATION_MALFORMED:
                written[AUTHORIZATION] = "Bearer"
            case Reason.AUTH_TYPE_UNKNOWN if types.header:
                written[types.header] = "?"
        made = Request(self.method, path, request.host, written, raw=True, decision_id=request.decision_id)
        may_be_preflight = self.method == "OPTIONS" and self.reason in (Reason.PUBLIC, Reason.METHOD_IN_QUERY)
        return self._as_preflight(made) if may_be_preflight else made

    def caller(self) -> Caller:
        """Return who sent it: the identity that the line names, or why its token was refused."""
        auth_type = self.line.auth_type
        if auth_type is not None:
            kind = Kind.OAUTH if auth_type is AuthType.OAUTH else Kind.ISSUED
            return Caller(kind, self._identity(auth_type))
        if self.reason is None or self.reason in (Reason.CREDENTIAL_MISSING, Reason.TOKEN_IN_QUERY):
            return NOBODY
        if self.reason is Reason.CREDENTIAL_DISABLED:
            return Caller(next((kind for kind in Kind if kind not in self.policy.kinds), Kind.ISSUED), Reason.TOKEN_UNKNOWN)
        if STEP_OF[self.reason] is Step.TOKEN:
            kind = Kind.OAUTH if self.reason in _OF_PROVIDERS else self.line.kind or Kind.ISSUED
            return Caller(kind if kind in self.policy.kinds else next(iter(sorted(self.policy.kinds)), kind), self.reason)
        return Caller(Kind.ISSUED, Reason.TOKEN_UNKNOWN) if self.reason in VERIFYING | {Reason.AUTH_TYPE_UNKNOWN} else NOBODY

    def _identity(self, auth_type: AuthType) -> Identity | Reason:
        if self.reason is Reason.TOKEN_EXPIRED:
            return self.reason
        held, route = self.line.held_scopes, self._route()
        if held is not None:
            scopes = frozenset(held.split())
            if self.line.held is None:
                self._note("The log may have had no room for all scopes of this token: those that it tells are assumed.")
        else:
            scopes = frozenset(route.scopes if route is not None else ())
            self._note("The log does not tell the scopes of this token: those that the route asks for are assumed.")
        user = None if auth_type in (AuthType.GLOBAL, AuthType.ANONYMOUS) else self.line.user or None
        actor = self.line.actor or "described"
        if self.reason is Reason.IDENTITY_TOO_LONG:
            self._note("The log does not tell which header would be too long: that of the actor is assumed.")
            actor = f"{actor}{'~' * MAX_VALUE}"
        return Identity(auth_type, actor, user, scopes, math.inf, self.line.client_id or None, self.line.token_id or None)

    def _headers(self) -> dict[str, str]:
        """Return the act-as headers that fit."""
        names, user = self.policy.act_as.headers, self.line.user
        match self.reason:
            case Reason.ACT_AS_MISSING:
                return {}
            case Reason.ACT_AS_MALFORMED:
                return {names[0]: "?"}
            case Reason.ACT_AS_CONFLICT:
                return {names[0]: STRANGER, names[-1]: f"not.{STRANGER}"}
            case Reason.ACT_AS_NOT_ALLOWED:
                return {names[0]: STRANGER}
            case Reason.ACT_AS_FORBIDDEN:
                self._note("The log does not tell for whom the token would have acted: a user that is not allowed is assumed.")
                return {names[0]: STRANGER}
        if self.line.auth_type is not AuthType.GLOBAL:
            return {}
        if not user:
            self._note("The log does not tell for whom the token acts.")
        return {names[0]: user} if user else {}

    def _host(self) -> str:
        """Return a host for which the routes have the one of the line."""
        if not self.policy.hosts:
            return ""
        if self.reason is Reason.HOST_MALFORMED:
            return "?, ?"
        if self.line.route is None:
            self._note("The log does not tell the host: one for which this reason comes out is assumed.")
            return next((host for host in (_OTHER_HOST, *self.policy.hosts) if self._comes_out(host)), _OTHER_HOST)
        return next((host for host, table in self.policy.hosts.items() if self._has_route(routes_of(table))), _OTHER_HOST)

    def _comes_out(self, host: str) -> bool:
        found = plan(self.policy, Request(self.method, self.path, host, {}, raw=True, decision_id=DECISION_ID))
        if self.reason is not None and STEP_OF[self.reason] is Step.TOKEN:
            return not (isinstance(found, Deny) and STEP_OF[found.reason] is Step.ROUTE)
        return isinstance(found, Deny) and found.reason is self.reason

    def _has_route(self, routes: Iterable[Route]) -> bool:
        return any(route.name == self.line.route for route in routes)

    def _route(self) -> Route | None:
        tables = (self.policy.routes, *self.policy.hosts.values())
        return next((route for table in tables for route in routes_of(table) if route.name == self.line.route), None)

    def _as_preflight(self, request: Request) -> Request:
        """Return what makes an OPTIONS request the preflight that it must have been, if nothing else lets it in."""
        found, route = plan(self.policy, request), self._route()
        if route is None or (not isinstance(found, Plan) and (found.route, found.reason) == (route.name, self.reason)):
            return request
        method = next((method for method in route.match.methods if method != ANY_METHOD), "GET")
        headers = {"origin": "https://described.invalid", "access-control-request-method": method, **request.headers}
        return Request(request.method, request.path, request.host, headers, raw=True, decision_id=request.decision_id)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


_QUERIES: Mapping[Reason | None, str] = {Reason.TOKEN_IN_QUERY: "access_token=", Reason.METHOD_IN_QUERY: "_method="}
