"""Browsers on other origins: what the CORS filter of Envoy has to allow and to show, read from a loaded configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING

from extauthz.core.credentials import AUTHORIZATION
from extauthz.core.routes import ANY_METHOD, STAR_METHODS, Node, Route
from extauthz.envoy_config.templates import filled, scalar

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration

EVERY_ORIGIN = "*"
EXAMPLE_ORIGIN = "https://app.example.com"
OF_GRPC_WEB_REQUESTS = ("x-grpc-web", "x-user-agent", "grpc-timeout")
OF_GRPC_WEB_ANSWERS = ("grpc-status", "grpc-message")

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?").fullmatch
_DEFAULT_PORT = re.compile(r"(?:http://.*:80|https://.*:443)").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """A policy; without `origins` it is printed as a comment."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    allowed: tuple[str, ...]
    exposed: tuple[str, ...]


def cors_of(configuration: Configuration, origins: Sequence[str] = (), *, grpc_web: bool = False) -> Cors:
    """Return the policy for scripts of these origins; raises ValueError for what a browser never sends as an origin."""
    for origin in origins:
        _check(origin)
    policy, answers = configuration.policy, configuration.settings.answers.answers
    tables = (policy.routes, *policy.hosts.values())
    methods = {method for table in tables for route in _routes(table.root) if not route.deny for method in route.match.methods}
    of_denials = ("www-authenticate", policy.identity.names["decision-id"], "retry-after")
    of_answers = sorted({name for answer in answers.reasons.values() for name, _ in answer.headers})
    return Cors(
        origins=tuple(dict.fromkeys(origins)),
        methods=tuple(dict.fromkeys((*(STAR_METHODS if ANY_METHOD in methods else ()), *sorted(methods - {ANY_METHOD})))),
        allowed=(AUTHORIZATION, "content-type", *policy.identity.credentials[1:], *(OF_GRPC_WEB_REQUESTS if grpc_web else ())),
        exposed=(*of_denials, *of_answers, *(OF_GRPC_WEB_ANSWERS if grpc_web else ())),
    )


def filter_text(cors: Cors) -> str:
    """Return the HTTP filter, with an empty line after it."""
    switched = "" if cors.origins else "# Print it with --cors ORIGIN to switch it on.\n"
    return _commented(cors, filled("cors", {"switched": switched})) + "\n"


def policy_text(cors: Cors) -> str:
    """Return what belongs into a virtual host."""
    origins = ", ".join(f"{{exact: {scalar(origin)}}}" for origin in cors.origins or (EXAMPLE_ORIGIN,))
    lists = {"methods": cors.methods, "allowed": cors.allowed, "exposed": cors.exposed}
    listed = {name: scalar(", ".join(values)) for name, values in lists.items()}
    return _commented(cors, filled("cors_policy", {"origins": origins, **listed}))


def _commented(cors: Cors, text: str) -> str:
    return text if cors.origins else indent(text, "# ", lambda line: not line.startswith("#"))


def _routes(node: Node) -> Iterator[Route]:
    for methods in (node.methods, node.rest):
        yield from (methods or {}).values()
    for below in (*node.literals.values(), *filter(None, [node.parameter])):
        yield from _routes(below)


def _check(origin: str) -> None:
    if origin == EVERY_ORIGIN:
        return
    if not _ORIGIN(origin):
        raise ValueError(f"--cors: {origin!r} is no origin: write scheme, host and port in lower case, like {EXAMPLE_ORIGIN}")
    if _DEFAULT_PORT(origin):
        raise ValueError(f"--cors: {origin!r}: browsers leave this port out: write {origin.rpartition(':')[0]}")
