"""What an explanation is: checks in the order of docs/decisions.md, and the closed table of which reason belongs to which check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from extauthz.core.model import ALLOWING, Decision, Reason


class Step(StrEnum):
    """A check: its rule in docs/decisions.md, and what it looks at in words."""

    rule: str
    label: str

    def __new__(cls, value: str, number: int, label: str) -> Self:
        """Build a member from its row."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.rule = f"ORDER-{number}"
        member.label = label
        return member

    REQUEST = "request", 1, "readable request"
    ROUTE = "route", 2, "route"
    METHOD_IN_QUERY = "method_in_query", 3, "method in the query"
    PUBLIC = "public", 4, "open without a token"
    CREDENTIAL = "credential", 5, "credential"
    TOKEN = "token", 6, "verified token"
    KIND = "kind", 7, "kind of token"
    ACT_AS = "act_as", 8, "act-as"
    ANONYMOUS = "anonymous", 9, "anonymous token"
    SCOPES = "scopes", 10, "scopes"
    IDENTITY = "identity", 11, "identity for the upstream"


class CheckOutcome(StrEnum):
    """What became of a check: `unknown` where nobody verified the token, `not_needed` where it has no meaning for the request."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_REACHED = "not_reached"
    NOT_NEEDED = "not_needed"


REASONS_OF: Mapping[Step, tuple[Reason, ...]] = {
    Step.REQUEST: (Reason.REQUEST_MALFORMED, Reason.PATH_MALFORMED, Reason.PATH_AMBIGUOUS, Reason.HOST_MALFORMED),
    Step.ROUTE: (Reason.ROUTE_UNKNOWN, Reason.METHOD_NOT_ALLOWED, Reason.ROUTE_DENIED),
    Step.METHOD_IN_QUERY: (Reason.METHOD_IN_QUERY,),
    Step.PUBLIC: (Reason.PUBLIC,),
    Step.CREDENTIAL: (
        Reason.TOKEN_IN_QUERY,
        Reason.CREDENTIAL_MISSING,
        Reason.AUTHORIZATION_MALFORMED,
        Reason.SCHEME_UNSUPPORTED,
        Reason.AUTH_TYPE_UNKNOWN,
        Reason.CREDENTIAL_DISABLED,
    ),
    Step.TOKEN: (
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_MALFORMED,
        Reason.TOKEN_CHECKSUM,
        Reason.TOKEN_UNKNOWN,
        Reason.TOKEN_SECRET_WRONG,
        Reason.TOKEN_REVOKED,
        Reason.TOKEN_SIGNATURE,
        Reason.TOKEN_ALGORITHM,
        Reason.TOKEN_KEY_UNKNOWN,
        Reason.TOKEN_HEADER_FORBIDDEN,
        Reason.TOKEN_ISSUER,
        Reason.TOKEN_AUDIENCE,
        Reason.TOKEN_CLIENT,
        Reason.TOKEN_NOT_YET_VALID,
        Reason.TOKEN_CLAIMS_MALFORMED,
        Reason.TOKEN_KIND_WRONG,
        Reason.TOKEN_USER_INVALID,
        Reason.TOKEN_USER_NOT_ALLOWED,
        Reason.TOKEN_INACTIVE,
        Reason.STORE_UNAVAILABLE,
        Reason.STORE_REWOUND,
        Reason.STORE_STALE,
        Reason.ISSUER_UNAVAILABLE,
        Reason.KEY_SET_UNAVAILABLE,
        Reason.CHECK_TIMEOUT,
        Reason.OVERLOADED,
        Reason.DRAINING,
        # A fault of ours has no place of its own: what can fail besides is what verifies.
        Reason.INTERNAL,
    ),
    Step.KIND: (Reason.CREDENTIAL_NOT_ACCEPTED,),
    Step.ACT_AS: (
        Reason.ACT_AS_MISSING,
        Reason.ACT_AS_MALFORMED,
        Reason.ACT_AS_CONFLICT,
        Reason.ACT_AS_NOT_ALLOWED,
        Reason.ACT_AS_FORBIDDEN,
    ),
    Step.ANONYMOUS: (Reason.ANONYMOUS_NOT_ALLOWED,),
    Step.SCOPES: (Reason.SCOPE_MISSING,),
    Step.IDENTITY: (Reason.IDENTITY_TOO_LONG, Reason.ALLOWED),
}
"""The check that each reason belongs to."""
STEP_OF: Mapping[Reason, Step] = {reason: step for step, reasons in REASONS_OF.items() for reason in reasons}


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what the request has, the rule that it is compared with, and where that is written, "" if nowhere."""

    step: Step
    outcome: CheckOutcome
    value: str = ""
    rule: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamHeader:
    """A header as the upstream sees it: `value` None for one that passes as the client sent it, which is not shown."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All checks of a request in their order, and what they come to.

    `decision` is None where it depends on a token that nobody verified. `headers` are those that the upstream gets, and `removed`
    those of the request that it does not. `remedies` say what would make the request pass, `notes` what else is good to know.
    """

    checks: tuple[Check, ...]
    decision: Decision | None
    headers: tuple[UpstreamHeader, ...] = ()
    removed: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """Return allow, deny, would_deny in monitor mode, or unknown."""
        return "unknown" if self.decision is None else self.decision.outcome

    @property
    def is_allowed(self) -> bool:
        """Whether the request passes by the policy, and not by monitor mode alone."""
        return self.decision is not None and self.decision.reason in ALLOWING

    @property
    def reason(self) -> Reason | None:
        """The reason, None where it is unknown."""
        return None if self.decision is None else self.decision.reason

    @property
    def failed(self) -> Check | None:
        """The check that refused the request."""
        return next((check for check in self.checks if check.outcome is CheckOutcome.FAILED), None)

    def document(self) -> dict[str, Any]:
        """Return it as plain data for JSON; a header without a value passes as the client sent it."""
        reason, decision = self.reason, self.decision
        return {
            "outcome": self.outcome,
            "reason": reason.value if reason is not None else None,
            "status": reason.status if reason is not None else None,
            "route": decision.route if decision is not None else None,
            "checks": [
                {
                    "check": check.step.value,
                    "order": check.step.rule,
                    "outcome": check.outcome.value,
                    "value": check.value or None,
                    "rule": check.rule or None,
                    "place": check.place or None,
                }
                for check in self.checks
            ],
            "headers": {header.name: header.value for header in self.headers},
            "removed": list(self.removed),
            "remedies": list(self.remedies),
            "notes": list(self.notes),
        }
