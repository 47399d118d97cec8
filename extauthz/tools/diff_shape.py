"""What differs between two configurations, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Impact(StrEnum):
    """What becomes of requests, the worst first."""

    WIDENED = "widened"
    """They were refused, and go on now."""
    NARROWED = "narrowed"
    """They went on, and are refused now."""
    HEADERS = "headers"
    """They go on as before, and the upstream gets other headers."""
    REASON = "reason"
    """They are refused as before, for another reason."""


class FailOn(StrEnum):
    """Which differences are a failure."""

    WIDENED = "widened"
    NARROWED = "narrowed"
    ANY = "any"


class SettingRole(StrEnum):
    """What a setting has to do with the findings."""

    COMPUTED = "computed"
    """The findings tell all that its change does to requests."""
    NOT_COMPUTED = "not computed here"
    """It has a part in whether requests go on, or what the upstream gets, which the files alone do not tell."""
    NO_PART = "decides no request"
    """It decides no request."""


@dataclass(frozen=True, slots=True)
class RouteReference:
    """The route that decides; both are None where no route does."""

    name: str | None
    place: str | None


@dataclass(frozen=True, slots=True)
class DecisionSummary:
    """`decision` is allow, deny or would_deny; `reason` and `status` are those of the decision."""

    decision: str
    reason: str
    status: int


@dataclass(frozen=True, slots=True)
class CallerChange:
    """Whom it concerns, and one request of theirs as a curl line, with `$TOKEN` in place of a token.

    `kind` is nobody, oauth, GLOBAL, USER or ANONYMOUS; `provider` is named where those of OAuth differ. `scopes` are the least that
    a token of this class holds, None where scopes do not count. `details` say what else is special about the request: whom it acts
    for, or how its token is sent. `headers` are names that the upstream gets with another value, gets no more, or gets now.
    """

    kind: str
    provider: str
    scopes: tuple[str, ...] | None
    details: tuple[str, ...]
    old: DecisionSummary
    new: DecisionSummary
    headers: tuple[str, ...]
    curl: str


@dataclass(frozen=True, slots=True)
class RoutePair:
    """The route that decided, and the one that decides now."""

    old: RouteReference
    new: RouteReference


@dataclass(frozen=True, slots=True)
class RouteDifference:
    """One difference: of the requests that `routes` decide, with these methods and hosts, those of `callers`.

    There are several pairs of routes where not their lines differ but settings, so that one change is one finding. A method that no
    line names stands for all such; the host "" for every host that no file names.
    """

    impact: Impact
    routes: tuple[RoutePair, ...]
    methods: tuple[str, ...]
    hosts: tuple[str, ...]
    callers: tuple[CallerChange, ...]


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A key with another value; `old` and `new` are file and line, or "default"."""

    key: str
    role: SettingRole
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Differences:
    """All that differs; `incomplete` says in sentences what could not be compared exactly."""

    findings: tuple[RouteDifference, ...]
    settings: tuple[SettingChange, ...]
    incomplete: tuple[str, ...]

    def fails(self, on: FailOn) -> bool:
        """Tell whether there is such a difference, or could be one: what was not compared counts."""
        impacts = {finding.impact for finding in self.findings}
        if on is not FailOn.ANY:
            return bool(self.incomplete) or Impact(on.value) in impacts
        return bool(self.incomplete or impacts) or any(setting.role is SettingRole.NOT_COMPUTED for setting in self.settings)
