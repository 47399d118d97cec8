"""What a configuration lets through, compared with API descriptions: asked of the steps that serve, for each operation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice

from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, plan
from extauthz.core.model import Allow, AuthType, Deny, Identity, Reason, Request, WouldDeny
from extauthz.core.policy import Policy
from extauthz.tools.callers import Caller
from extauthz.tools.calls import Call, decided_call, request_of
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_access import Accesses, Alternatives, of_route
from extauthz.tools.openapi_asking import AskedPath, Owners, Question, all_routes, fresh_word, requests
from extauthz.tools.openapi_paths import Shape, pattern

_NOW = 0.0


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


def coverage(question: Question) -> DescriptionCoverage:
    """Ask about every operation, and look for routes that no operation came to."""
    word = fresh_word(question)
    longest = max((len(route.match.segments) for route in all_routes(question.policy)), default=0)
    owners = Owners(question, word)
    accesses = Accesses(question.rules, question.vocabulary)
    floors = {operation: accesses.floor(operation) for operation in question.operations}
    asked = [
        [_ask(question.policy, operation.method, each) for each in requests(question, operation, word, longest)]
        for operation in question.operations
    ]
    findings: list[Discrepancy] = []
    counts = {"opened": 0, "denied": 0, "unreachable": 0}
    for operation, answers in zip(question.operations, asked, strict=True):
        counts[_state(answers)] += 1
        findings += _not_routed(operation, answers, owners)
        findings += _wider(operation, answers, owners, floors)
    findings += _without_operation(question, {answer.route for answers in asked for answer in answers if answer.route})
    accepted = tuple(_accepted(finding, question) for finding in dict.fromkeys(findings))
    return DescriptionCoverage(accepted, len(question.operations), **counts)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a request comes to: the name of its route, the route itself where a token is needed, and who needs none."""

    asked: AskedPath
    route: str
    reason: Reason | None = None
    plan: Plan | None = None
    is_open: bool = False
    is_monitored: bool = False


def _ask(policy: Policy, method: str, asked: AskedPath) -> _Answer:
    nobody = decided_call(policy, Call(method, asked.path, asked.host), _NOW)
    is_open = not isinstance(nobody, Deny)
    monitored = isinstance(nobody, WouldDeny)
    somebody = plan(policy, _with_token(policy, method, asked.path, asked.host))
    match somebody:
        case Plan():
            return _Answer(asked, somebody.route.name, None, somebody, is_open, monitored)
        case Allow():
            return _Answer(asked, somebody.route, None, None, is_open, monitored)
        case _:
            return _Answer(asked, somebody.route or "", somebody.reason, None, is_open, monitored)


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


def _not_routed(operation: DescribedOperation, answers: Sequence[_Answer], owners: Owners) -> Iterator[Discrepancy]:
    """Yield the templates without any path that has a route: that a wildcard lacks some is stricter."""
    of_template: dict[tuple[Shape, str], list[_Answer]] = {}
    for answer in answers:
        of_template.setdefault((answer.asked.shape, answer.asked.host), []).append(answer)
    for group in of_template.values():
        if all(answer.reason in _UNROUTED | _UNREADABLE for answer in group):
            unrouted = (answer for answer in group if answer.reason in _UNROUTED and owners.has(answer.asked))
            for answer in islice(unrouted, 1):
                why = f"{operation.method} {answer.asked.path} is {answer.reason}"
                yield Discrepancy(DiscrepancyKind.NO_ROUTE, operation.label, "", why, operation.place)


def _wider(
    operation: DescribedOperation,
    answers: Sequence[_Answer],
    owners: Owners,
    floors: Mapping[DescribedOperation, Alternatives | None],
) -> Iterator[Discrepancy]:
    for answer in answers:
        for owner in owners.of(operation, answer.asked) if answer.is_open or answer.plan else ():
            why = _why_wider(owner, answer, floors[owner])
            if why:
                yield Discrepancy(DiscrepancyKind.WIDER, owner.label, answer.route, why, owner.place)


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
    for route in all_routes(question.policy):
        place = question.places.get(route.name, "")
        is_of_files = not question.files or place.rpartition(":")[0] in question.files
        is_described = route.name in reached or (route.match.rest and route.match.text.partition(" ")[2] in wildcards)
        if not is_described and not route.deny and is_of_files and route.name not in seen:
            seen.add(route.name)
            yield Discrepancy(DiscrepancyKind.NO_OPERATION, "", route.name, f"no description has {route.match.text}", place)


def _accepted(finding: Discrepancy, question: Question) -> Discrepancy:
    names = (finding.operation, finding.route)
    for each in question.rules.accepted:
        glob = re.compile(".*".join(map(re.escape, each.what.split("*"))), re.DOTALL)
        if any(name and glob.fullmatch(name) for name in names):
            return replace(finding, accepted=each.why)
    return finding
