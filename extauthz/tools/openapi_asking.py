"""What is asked of a configuration about API descriptions: a path for each operation, and whose it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from urllib.parse import unquote

from extauthz.admin.route_map import routes_of
from extauthz.config.openapi_map import OpenapiMap
from extauthz.core.model import Reason
from extauthz.core.paths import Path, parse
from extauthz.core.policy import Policy
from extauthz.core.routes import Route
from extauthz.core.upstream import STRICT, Upstream, widest
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_paths import WORD, Parameter, Shape, sample, shape
from extauthz.tools.openapi_shapes import Shapes, comes_first, numbers_of

_ANY_HOST = "localhost"
MAX_ASKED = 256
"""Paths of one template that are asked about: one with several wildcards has as many segments in each if there were more."""


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


@dataclass(frozen=True, slots=True)
class AskedPath:
    """A path that is asked about at a host, and the shape of all paths of the template that it is one of."""

    path: str
    host: str
    shape: Shape

    @property
    def has_rest(self) -> bool:
        """Tell whether the template has a wildcard."""
        return Parameter.REST in self.shape


class Owners:
    """Which operations a path belongs to, at each host: operations by host and method, and under "" those of all methods."""

    def __init__(self, question: Question, word: str) -> None:
        """Keep what is asked, and the word that stands for parameters."""
        self._question = question
        self._word = word
        self._known: dict[tuple[str, str], Shapes[DescribedOperation]] = {}

    def of(self, operation: DescribedOperation, asked: AskedPath) -> list[DescribedOperation]:
        """Return the operations with the same method that a path of an operation belongs to."""
        path = parse(asked.path.partition("?")[0])
        if not asked.has_rest or not isinstance(path, Path):
            return [operation]
        return [owner for _, owner in self._shapes[asked.host, operation.method].owning(path.segments)]

    def has(self, asked: AskedPath) -> bool:
        """Tell whether a path does not belong to another template, whatever its methods: paths are compared first."""
        path = parse(asked.path.partition("?")[0])
        if not asked.has_rest or not isinstance(path, Path):
            return True
        shapes = self._shapes[asked.host, ""]
        form, read = shapes.read(asked.shape), shapes.read(path.segments)
        return not any(comes_first(other, form, read) for other, _ in shapes.having(path.segments))

    @property
    def _shapes(self) -> Mapping[tuple[str, str], Shapes[DescribedOperation]]:
        if not self._known:
            for operation in self._question.operations:
                for base, host in dict.fromkeys(_places(self._question, operation)):
                    form = shape(base + operation.path, operation.matrix, self._word)
                    for method in (operation.method, ""):
                        if (host, method) not in self._known:
                            self._known[host, method] = Shapes(self._upstream(host))
                        self._known[host, method].add(form, operation)
        return self._known

    def _upstream(self, host: str) -> Upstream:
        table = self._question.policy.table_for(host)
        return STRICT if isinstance(table, Reason) else table.upstream


def _places(question: Question, operation: DescribedOperation) -> Iterator[tuple[str, str]]:
    """Yield the bases of an operation with each host that is asked."""
    for server in operation.servers:
        yield from ((server.base, host) for host in question.hosts or (server.host or _ANY_HOST,))


def requests(question: Question, operation: DescribedOperation, word: str, longest: int) -> Iterator[AskedPath]:
    """Yield what is asked of an operation: a path of each base, and of a wildcard one for each number of segments.

    With more of them than any pattern has, it meets no pattern but those that end in `**`.
    """
    found: dict[tuple[str, str], Shape] = {}
    for base, host in dict.fromkeys(_places(question, operation)):
        template = base + operation.path
        form = shape(template, operation.matrix, word)
        several = numbers_of(form, longest, MAX_ASKED) or [(number,) * len(form) for number in range(longest + 2)]
        for numbers in several:
            found.setdefault((sample(template, operation.matrix, word, numbers), host), form)
    yield from (AskedPath(path, host, form) for (path, host), form in found.items())


def all_routes(policy: Policy) -> Iterator[Route]:
    """Yield the routes of all hosts."""
    for table in (policy.routes, *policy.hosts.values()):
        yield from routes_of(table)


def fresh_word(question: Question) -> str:
    """Return a word that is no literal of any route or description, however an upstream reads it."""
    described = {base + operation.path for operation in question.operations for base, _ in _places(question, operation)}
    words = {unquote(piece) for template in described for piece in template.split("/")}
    words |= {segment for route in all_routes(question.policy) for segment in route.match.segments if segment}
    taken = set(map(widest, words))
    return next(word for number in count() if (word := f"{WORD}{number or ''}") not in taken)
