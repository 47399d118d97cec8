"""What a line of the decision log leaves open about who sent its request: each way of reading it, to be decided one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from extauthz.config.vocabulary import kept_scope
from extauthz.core.act_as import ActAs, address
from extauthz.core.credentials import AUTHORIZATION, Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.policy import Policy
from extauthz.core.providers import ProviderRules
from extauthz.tools.callers import NOBODY, TOKEN_ID, VERIFYING, Caller
from extauthz.tools.log_lines import LogLine, Undecidable

ScopesOf = Callable[[str], frozenset[str] | None]
"""Scopes of an issued token by its id, None where they are not known."""

USER = "user@host.invalid"
"""Stands for a user whom a line does not name."""
MAX_PLAIN = 128
"""Characters of an identity that fits into headers however it is encoded."""
TOO_LONG = "x" * 600
MAX_TOKENS = 200_000
"""Tokens whose scopes are remembered, and users for whom one may act or not."""

WITHOUT_TOKEN = frozenset(
    {
        *(Reason.PUBLIC, Reason.ROUTE_UNKNOWN, Reason.METHOD_NOT_ALLOWED, Reason.ROUTE_DENIED),
        *(Reason.PATH_AMBIGUOUS, Reason.HOST_MALFORMED, Reason.METHOD_IN_QUERY),
    }
)
"""Reasons with which nobody looked for a token."""
_QUERIES = {Reason.METHOD_IN_QUERY: "?_method=", Reason.TOKEN_IN_QUERY: "?access_token="}
_AUTHORIZATIONS = {Reason.SCHEME_UNSUPPORTED: "Basic", Reason.AUTHORIZATION_MALFORMED: "Bearer"}
_BEFORE_ACT_AS = Reason.CREDENTIAL_NOT_ACCEPTED
_ISSUED_KINDS = frozenset(
    {Reason.TOKEN_CHECKSUM, Reason.TOKEN_UNKNOWN, Reason.TOKEN_SECRET_WRONG, Reason.TOKEN_REVOKED, Reason.STORE_REWOUND}
)
"""Reasons that only an issued token is refused for."""
_ANYBODY = re.compile(".*", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class LogSender:
    """One reading of a line: who calls, with which headers and query.

    `act_as` are rules in place of the policy's, where the line does not say whom they were asked about.
    """

    caller: Caller = NOBODY
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""
    act_as: ActAs | None = None


Readings = Iterator[tuple[Undecidable | None, LogSender]]
"""Readings of a line, the first of which has None; the others with what is not known if they are decided otherwise."""


class LogSenders:
    """Reads lines for one configuration; `scopes_of` knows issued tokens."""

    def __init__(self, policy: Policy, providers: Sequence[ProviderRules], vocabulary: Sequence[str], scopes_of: ScopesOf) -> None:
        """Look at the configuration once."""
        self._policy = policy
        self._vocabulary = vocabulary
        self._may_act = lru_cache(maxsize=MAX_TOKENS)(partial(_may_act, policy.act_as))
        self._of_token = lru_cache(maxsize=MAX_TOKENS)(partial(self._look_up, scopes_of))
        self._providers = {f"oauth:{rules.name}": rules for rules in providers}
        self._everything = frozenset(vocabulary)
        rules = policy.act_as
        self._anybody, self._nobody = ActAs(rules.headers, _ANYBODY), ActAs(rules.headers)

    def case(self, line: LogLine) -> object:
        """Return what readings of a line depend on besides its method and path: two lines with one case are read alike."""
        reason = line.reason
        if reason in VERIFYING or reason is Reason.CREDENTIAL_DISABLED:
            return reason, line.kind
        if line.auth_type is None:
            return reason
        texts = f"{line.actor} {line.user} {line.client_id}"
        is_plain = len(texts) <= MAX_PLAIN and texts.isascii()
        may = self._may_act(line.user) if line.auth_type is AuthType.GLOBAL else bool(line.user)
        return reason, line.auth_type, may, self._scopes(line), self._has_provider(line), None if is_plain else texts

    def readings(self, line: LogLine) -> Readings:
        """Yield each reading of a line that was not cut, and that is about a request."""
        reason = line.reason
        if reason is None or reason in WITHOUT_TOKEN:
            yield from self._without_token(reason)
        elif reason in VERIFYING:
            yield from self._unverified(line, (reason,))
        elif reason is Reason.CREDENTIAL_DISABLED:
            # Which of both it would have been is not known; where the kind is off as well, nobody asks.
            yield from self._unverified(line, (Reason.TOKEN_UNKNOWN, Reason.TOKEN_REVOKED))
        elif reason is Reason.CREDENTIAL_MISSING or reason in _AUTHORIZATIONS or reason is Reason.TOKEN_IN_QUERY:
            headers = {AUTHORIZATION: _AUTHORIZATIONS[reason]} if reason in _AUTHORIZATIONS else {}
            yield None, LogSender(headers=headers, query=_QUERIES.get(reason, ""))
        elif reason is Reason.AUTH_TYPE_UNKNOWN:
            yield from self._of_unknown_kind()
        else:
            yield from self._verified(line)

    def _without_token(self, reason: Reason | None) -> Readings:
        query = _QUERIES.get(reason, "") if reason else ""
        yield None, LogSender(query=query)
        yield Undecidable.CREDENTIAL_NOT_READ, LogSender(Caller(Kind.ISSUED, Reason.TOKEN_UNKNOWN), query=query)

    def _unverified(self, line: LogLine, comes_to: tuple[Reason, ...]) -> Readings:
        kind = Kind.ISSUED if line.reason in _ISSUED_KINDS else line.kind
        kinds = tuple(Kind) if kind is None else (kind,)
        unknown = None
        for each in kinds:
            for reason in comes_to:
                yield unknown, LogSender(Caller(each, reason))
                unknown = Undecidable.TOKEN_NOT_VERIFIED

    def _of_unknown_kind(self) -> Readings:
        """Yield a header that says neither kind; where the token itself tells it, either."""
        header = self._policy.auth_types.header
        if header:
            yield None, LogSender(Caller(Kind.ISSUED, Reason.TOKEN_UNKNOWN), {header: "?"})
            return
        yield None, LogSender(Caller(Kind.ISSUED, Reason.TOKEN_UNKNOWN))
        yield Undecidable.TOKEN_NOT_VERIFIED, LogSender(Caller(Kind.OAUTH, Reason.TOKEN_ISSUER))

    def _verified(self, line: LogLine) -> Readings:
        if line.auth_type is None:
            yield None, LogSender()
            yield Undecidable.CALLER_ABSENT, LogSender(Caller(Kind.ISSUED, Reason.TOKEN_UNKNOWN))
            return
        scopes = self._scopes(line)
        identity = self._identity(line.auth_type, line, self._everything if scopes is None else scopes)
        (headers, rules), *others = self._act_as(line)
        yield None, _sender(identity, headers, rules)
        if not self._has_provider(line):
            yield Undecidable.PROVIDER, LogSender(Caller(Kind.OAUTH, Reason.TOKEN_ISSUER), headers, act_as=rules)
        for other_headers, other_rules in others:
            yield Undecidable.ACT_AS, _sender(identity, other_headers, other_rules)
        if scopes is None:
            yield Undecidable.SCOPES, _sender(replace(identity, scopes=frozenset()), headers, rules)
        if line.reason is Reason.IDENTITY_TOO_LONG:
            yield Undecidable.IDENTITY, _sender(replace(identity, actor=TOO_LONG), headers, rules)

    def _act_as(self, line: LogLine) -> Iterator[tuple[dict[str, str], ActAs | None]]:
        """Yield act-as headers, and rules in place of the policy's, that a line may mean."""
        names = self._policy.act_as.headers
        one = {names[0]: USER}
        is_global, reason = line.auth_type is AuthType.GLOBAL, line.reason
        if reason is Reason.ACT_AS_MISSING or (not is_global and reason not in (_BEFORE_ACT_AS, Reason.ACT_AS_NOT_ALLOWED)):
            yield {}, None
        elif reason is Reason.ACT_AS_NOT_ALLOWED:
            yield one, None
        elif reason is Reason.ACT_AS_MALFORMED:
            yield {names[0]: "?"}, None
        elif reason is Reason.ACT_AS_CONFLICT and len(names) > 1:
            yield {names[0]: USER, names[1]: f"another-{USER}"}, None
        elif is_global and line.user and reason not in (Reason.ACT_AS_FORBIDDEN, _BEFORE_ACT_AS):
            yield {names[0]: line.user}, None
        elif reason is Reason.ACT_AS_FORBIDDEN and self._policy.act_as.allow is None:
            yield one, None
        else:
            yield one, self._anybody
            yield one, self._nobody
            yield {}, None

    def _identity(self, auth_type: AuthType, line: LogLine, scopes: frozenset[str]) -> Identity:
        token_id = None if auth_type is AuthType.OAUTH else line.token_id or TOKEN_ID
        actor = line.actor or (f"oauth:described:{USER}" if token_id is None else f"token:{token_id}")
        user = (line.user or USER) if auth_type in (AuthType.OAUTH, AuthType.USER) else None
        return Identity(auth_type, actor, user, scopes, math.inf, line.client_id, token_id)

    def _scopes(self, line: LogLine) -> frozenset[str] | None:
        """Return the scopes of a verified token, None where they are not known."""
        if line.auth_type is AuthType.OAUTH:
            rules = self._rules(line)
            if rules is not None and rules.scope_claims is None:
                return rules.scopes
            return line.held if rules is None or line.held is None else line.held & rules.scopes
        if line.held is not None:
            return self._written(line.held)
        return None if line.token_id is None else self._of_token(line.token_id)

    def _look_up(self, scopes_of: ScopesOf, token_id: str) -> frozenset[str] | None:
        held = scopes_of(token_id)
        return None if held is None else self._written(held)

    def _written(self, held: frozenset[str]) -> frozenset[str]:
        return frozenset(kept_scope(name, self._vocabulary) for name in held)

    def _rules(self, line: LogLine) -> ProviderRules | None:
        return self._providers.get((line.actor or "").rpartition(":")[0]) or next(
            (rules for start, rules in self._providers.items() if (line.actor or "").startswith(f"{start}:")), None
        )

    def _has_provider(self, line: LogLine) -> bool:
        return line.auth_type is not AuthType.OAUTH or self._rules(line) is not None


def _may_act(rules: ActAs, user: str | None) -> bool | str | None:
    """Return what decides about a user of a GLOBAL token: whether the rules permit one, or that it is none."""
    known = address(user) if user else None
    return user if known is None else rules.permits(known)


def _sender(identity: Identity, headers: dict[str, str], act_as: ActAs | None) -> LogSender:
    kind = Kind.OAUTH if identity.auth_type is AuthType.OAUTH else Kind.ISSUED
    return LogSender(Caller(kind, identity), headers, act_as=act_as)
