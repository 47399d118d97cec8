"""What a configuration lets through, compared with API descriptions: asked of the steps that serve, one request per operation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count

from extauthz.admin.route_map import routes_of
from extauthz.config.openapi_map import OpenapiMap
from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, plan
from extauthz.core.model import Allow, AuthType, Deny, Identity, Reason, Request, WouldDeny
from extauthz.core.policy import Policy
from extauthz.core.routes import Route
from extauthz.core.upstream import widest
from extauthz.tools.callers import Caller
from extauthz.tools.calls import Call, decided_call, request_of
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_access import Accesses, Alternatives, of_route
from extauthz.tools.openapi_paths import WORD, pattern, sample

_NOW = 0.0
_ANY_HOST = "localhost"


class DiscrepancyKind(StrEnum):
    """How a configuration differs from a description."""

    NO_ROUTE = "no route"
    WIDER = "wider"
    NO_OPERATION = "no operation"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One finding: the operation and the route, each "" where there is none, why, and why it is accepted if it is."""

    kind: DiscrepancyKind
    operation: str
    route: str
    why: str
    place: str = ""
    accepted: str = ""


@dataclass(frozen=True, slots=True)
class DescriptionCoverage:
    """All findings, and how many operations were asked about: those with a route that opens them, denied, and never reached."""

    findings: tuple[Discrepancy, ...]
    operations: int
    opened: int
    denied: int
    unreachable: int

    @property
    def refused(self) -> tuple[Discrepancy, ...]:
        """The findings that nobody accepted."""
        return tuple(finding for finding in self.findings if not finding.accepted)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a policy, where its routes stand, the descriptions with their mapping file, and the hosts to ask for.

    Without `hosts` it is that of the server. Routes without an operation are those of `files`, of all files if there are none.
    """

    policy: Policy
    places: Mapping[str, str]
    operations: Sequence[DescribedOperation]
    rules: OpenapiMap
    vocabulary: Sequence[str]
    hosts: Sequence[str] = ()
    files: Sequence[str] = ()


def coverage(question: Question) -> DescriptionCoverage:
    """Ask about every operation, and look for routes that no operation came to."""
    word = _fresh_word(question.policy)
    # With more segments than any pattern has, a wildcard meets no pattern but those that end in `**`.
    rests = ("", f"/{word}", f"/{word}" * (max((len(route.match.segments) for route in _routes(question.policy)), default=0) + 1))
    accesses = Accesses(question.rules, question.vocabulary)
    asked = [
        [
            replace(_ask(question.policy, operation.method, path, host), is_rest=is_rest)
            for path, host, is_rest in _requests(question, operation, word, rests)
        ]
        for operation in question.operations
    ]
    # What a wildcard shares with a path of its own is asked of the operation with that path.
    own = {answer.route for answers in asked if not _is_wildcard(answers) for answer in answers}
    findings: list[Discrepancy] = []
    counts = {"opened": 0, "denied": 0, "unreachable": 0}
    for operation, answers in zip(question.operations, asked, strict=True):
        counts[_state(answers)] += 1
        findings += _of_operation(operation, answers, accesses.floor(operation), own if _is_wildcard(answers) else frozenset())
    findings += _without_operation(question, {answer.route for answers in asked for answer in answers if answer.route})
    accepted = tuple(_accepted(finding, question) for finding in dict.fromkeys(findings))
    return DescriptionCoverage(accepted, len(question.operations), **counts)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a request comes to: the name of its route, the route itself where a token is needed, and who needs none."""

    route: str
    asked: str
    reason: Reason | None = None
    plan: Plan | None = None
    is_open: bool = False
    is_monitored: bool = False
    is_rest: bool = False


def _requests(
    question: Question, operation: DescribedOperation, word: str, rests: Iterable[str]
) -> Iterator[tuple[str, str, bool]]:
    """Yield paths with their hosts, and whether a wildcard has more segments than one in it, by the `rests` that it may have."""
    found: dict[tuple[str, str], bool] = {}
    for rest in rests:
        for server in operation.servers:
            path = sample(server.base + operation.path, operation.matrix, word, rest=rest)
            for host in question.hosts or (server.host or _ANY_HOST,):
                found.setdefault((path, host), bool(rest))
    yield from ((path, host, is_rest) for (path, host), is_rest in found.items())


def _ask(policy: Policy, method: str, path: str, host: str) -> _Answer:
    nobody = decided_call(policy, Call(method, path, host), _NOW)
    is_open = not isinstance(nobody, Deny)
    monitored = isinstance(nobody, WouldDeny)
    somebody = plan(policy, _with_token(policy, method, path, host))
    asked = f"{method} {path}"
    match somebody:
        case Plan():
            return _Answer(somebody.route.name, asked, None, somebody, is_open, monitored)
        case Allow():
            return _Answer(somebody.route, asked, None, None, is_open, monitored)
        case _:
            return _Answer(somebody.route or "", asked, somebody.reason, None, is_open, monitored)


def _with_token(policy: Policy, method: str, path: str, host: str) -> Request:
    kind = Kind.ISSUED if Kind.ISSUED in policy.kinds else Kind.OAUTH
    identity = Identity(AuthType.GLOBAL, "described", None, frozenset(), _NOW + 1)
    return request_of(policy, Call(method, path, host, caller=Caller(kind, identity)))


_UNREADABLE = {Reason.PATH_MALFORMED, Reason.PATH_AMBIGUOUS, Reason.METHOD_IN_QUERY, Reason.HOST_MALFORMED}
_UNROUTED = {Reason.ROUTE_UNKNOWN, Reason.METHOD_NOT_ALLOWED}


def _state(answers: Sequence[_Answer]) -> str:
    if any(answer.is_open or answer.plan for answer in answers):
        return "opened"
    return "unreachable" if all(answer.reason in _UNREADABLE for answer in answers) else "denied"


def _is_wildcard(answers: Iterable[_Answer]) -> bool:
    return any(answer.is_rest for answer in answers)


def _of_operation(
    operation: DescribedOperation, answers: Sequence[_Answer], floor: Alternatives | None, of_others: Set[str]
) -> Iterator[Discrepancy]:
    # With one segment or with several, a wildcard has a route: that the other is refused is stricter.
    is_routed = any(answer.is_rest and answer.reason not in _UNROUTED for answer in answers)
    for answer in answers:
        if answer.reason in _UNROUTED and not answer.is_rest and not is_routed:
            yield Discrepancy(DiscrepancyKind.NO_ROUTE, operation.label, "", f"{answer.asked} is {answer.reason}", operation.place)
        why = "" if answer.route in of_others else _why_wider(operation, answer, floor)
        if why:
            yield Discrepancy(DiscrepancyKind.WIDER, operation.label, answer.route, why, operation.place)


def _why_wider(operation: DescribedOperation, answer: _Answer, floor: Alternatives | None) -> str:
    """Say how the route lets more callers in than the description, "" where it does not."""
    if operation.is_open:
        return ""
    if answer.is_monitored:
        return "the route is in monitor mode, which forwards everybody, and the description demands security"
    if answer.is_open:
        return "the route is public, and the description demands security"
    if answer.plan is None:
        return ""
    route = answer.plan.route
    if AuthType.ANONYMOUS in route.accept:
        return "the route takes anonymous tokens, and the description demands security"
    least = of_route(route).alternatives
    if floor is None or all(any(names <= held for names in floor) for held in least):
        return ""
    return f"the route asks for {_sets(least)}, and the security of the description comes to {_sets(floor) or 'nobody'}"


def _sets(sets: Alternatives) -> str:
    return " or ".join(sorted(" and ".join(sorted(names)) for names in sets))


def _without_operation(question: Question, reached: set[str]) -> Iterator[Discrepancy]:
    """Yield the routes that open something, that no operation came to, and that no path with a wildcard is written as.

    Longer patterns may take every request of such a route.
    """
    seen: set[str] = set()
    wildcards = {
        pattern(server.base + operation.path, operation.matrix, rest=True).text
        for operation in question.operations
        for server in operation.servers
    }
    for route in _routes(question.policy):
        place = question.places.get(route.name, "")
        is_of_files = not question.files or place.rpartition(":")[0] in question.files
        is_described = route.name in reached or (route.match.rest and route.match.text.partition(" ")[2] in wildcards)
        if not is_described and not route.deny and is_of_files and route.name not in seen:
            seen.add(route.name)
            yield Discrepancy(DiscrepancyKind.NO_OPERATION, "", route.name, f"no description has {route.match.text}", place)


def _routes(policy: Policy) -> Iterator[Route]:
    for table in (policy.routes, *policy.hosts.values()):
        yield from routes_of(table)


def _accepted(finding: Discrepancy, question: Question) -> Discrepancy:
    names = (finding.operation, finding.route)
    for each in question.rules.accepted:
        glob = re.compile(".*".join(map(re.escape, each.what.split("*"))), re.DOTALL)
        if any(name and glob.fullmatch(name) for name in names):
            return replace(finding, accepted=each.why)
    return finding


def _fresh_word(policy: Policy) -> str:
    """Return a word that is no literal of any route, however an upstream reads it."""
    taken = {widest(segment) for route in _routes(policy) for segment in route.match.segments if segment}
    return next(word for number in count() if (word := f"{WORD}{number or ''}") not in taken)
