"""Every vector of a request as a case of a suite: `extauthz test` comes to the decision, the reason and the headers of the server.

What a suite cannot say is counted by its cause. What verifying a token comes to is asked of the verifier of the world, because
suites describe it; everything behind that is decided twice.
"""

from __future__ import annotations

import asyncio
import inspect
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from extauthz.config.patterns import METHODS
from extauthz.core.decide import Plan, plan
from extauthz.core.model import Identity, Reason, Request
from extauthz.errors import Unavailable
from extauthz.tools.callers import VERIFYING
from extauthz.tools.suite_cases import read_suites
from extauthz.tools.suite_runs import Runner
from extauthz.tools.yaml_text import quoted
from tests.support import vectors
from tests.support.vector_worlds import CASES, TABLES, Worlds, prepared, worlds
from tests.support.vectors import Case, VectorWorld
from tests.support.world import DECISION_ID, Answer

__all__ = ["worlds"]

UNSAYABLE = {
    "message": "a message of the protocol, and no request: Envoy never sends it, or it is about its form",
    "map form": "the form of headers without encode_raw_headers, in which Envoy writes '!' for a byte: a suite has exact bytes",
    "bytes": "a byte that is not UTF-8: a file of YAML is UTF-8",
    "method": "a method that Envoy lets nobody send: a suite takes it for a slip of the pen",
    "path": "no path, or one that ends with a blank: a suite takes it for a slip of the pen",
    "our fault": "a fault of the sidecar itself, which nothing in a request causes",
    "no scopes": "a token without any scope: a caller in words has at least one",
    "another scope": "a token with a scope that the vocabulary lacks, made before that was changed: a slip of the pen here",
}
"""Why a vector is no case of a suite."""


class UnsayableError(Exception):
    """A vector that a suite cannot say."""


@dataclass(frozen=True)
class Said:
    """A vector as a case, and what the server answered."""

    text: str
    headers: Mapping[str, str]
    answer: Answer


def utf8(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsayableError("bytes") from error


def yaml(value: object) -> str:
    """Write plain data as flow YAML."""
    match value:
        case dict():
            # The long form of a key: the short one ends at 1,024 characters.
            return "{" + ", ".join(f"? {quoted(name)} : {yaml(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(yaml, value)) + "]"
        case str():
            return quoted(value)
        case None:
            return "null"
    return str(value).lower()


def evidence_of(world: VectorWorld, planned: Plan) -> Identity | Reason:
    """Ask the verifier of a world, waiting as a check does."""

    async def asked() -> Identity | Reason:
        verifier = world.world.authorizer._runtime.verifiers[planned.credential.kind]
        found = verifier.verify(planned.credential.token, world.world.clock.now())
        if inspect.isawaitable(found) and world.world.authorizer._runtime.max_in_flight == 0:
            return Reason.OVERLOADED
        return await asyncio.wait_for(found, 0.05) if inspect.isawaitable(found) else found

    try:
        return asyncio.run(asked())
    except Unavailable as unavailable:
        return unavailable.reason
    except TimeoutError:
        return Reason.CHECK_TIMEOUT
    except asyncio.CancelledError:
        return Reason.DRAINING
    except RuntimeError as error:
        raise UnsayableError("our fault") from error


def words(kind: str, evidence: Identity | Reason, world: VectorWorld) -> str:
    """Describe a caller as a suite does."""
    if isinstance(evidence, Reason):
        assert evidence in VERIFYING, evidence
        return f"{'oauth' if kind == 'oauth' else 'GLOBAL'} reason={evidence}"
    if not evidence.scopes:
        raise UnsayableError("no scopes")
    if evidence.scopes - set(world.world.configuration.settings.scopes):
        raise UnsayableError("another scope")
    parts = {"scopes": ",".join(sorted(evidence.scopes)), "user": evidence.user, "token": evidence.token_id}
    parts |= {"client": evidence.client_id, "expires": datetime.fromtimestamp(evidence.expires_at, UTC).isoformat()}
    if kind == "oauth":
        _, provider, subject = evidence.actor.split(":", 2)
        parts |= {"provider": provider, "subject": subject}
    name = "oauth" if kind == "oauth" else evidence.auth_type.value
    return " ".join([name, *(f"{key}={shlex.quote(value)}" for key, value in parts.items() if value)])


def said(case: Case, world: VectorWorld) -> Said:
    """Ask the server about a vector, and write it as a case that expects just that; raise UnsayableError where that cannot be."""
    data = world.fill(prepared(case, world))
    if "path" in data:
        data["send"] = f"GET {data['path']}"
    if "message" in data or "bytes" in data:
        raise UnsayableError("message")
    if data.get("form") == "map":
        raise UnsayableError("map form")
    answer = world.ask(vectors.requests(data)["raw"])
    request = world.world.recorder.requests[-1]
    if request.method not in METHODS:
        raise UnsayableError("method")
    if not request.path or request.path.strip(" \t") != request.path:
        raise UnsayableError("path")
    # Those of HTTP/2 itself are method, path and host.
    headers = {name: utf8(value).replace("${", "$${") for name, value in request.headers.items() if not name.startswith(":")}
    line = {"request": f"{request.method} {utf8(request.path)}".replace("${", "$${"), "host": utf8(request.host)}
    line["time"] = datetime.fromtimestamp(world.world.clock.now(), UTC).isoformat()
    forwarded = upstream(request, answer) if answer.allowed else {}
    forwarded = {name: utf8(value).replace("${", "$${").replace(DECISION_ID, "${decision_id}") for name, value in forwarded.items()}
    planned = plan(world.world.configuration.policy, request)
    if isinstance(planned, Plan):
        line["who"] = words(planned.credential.kind.value, evidence_of(world, planned), world).replace("${", "$${")
        begin, _, end = headers["authorization"].rpartition(planned.credential.token)
        headers["authorization"] = f"{begin}${{token}}{end}"
        forwarded = {name: value.replace(planned.credential.token, "${token}") for name, value in forwarded.items()}
    if answer.reason == "internal":
        raise UnsayableError("our fault")
    text = yaml({**line, "headers": headers, "expect": expected(answer, forwarded)})
    return Said(f"  - {text}\n", forwarded, answer)


def upstream(request: Request, answer: Answer) -> dict[str, str]:
    """Return the headers behind an Envoy that does what the answer says."""
    removed = {name.lower() for name in answer.removed}
    kept = {name: value for name, value in request.headers.items() if name not in removed and not name.startswith(":")}
    return kept | answer.headers


def expected(answer: Answer, forwarded: Mapping[str, str]) -> dict[str, Any]:
    """Return everything that a suite can expect of an answer."""
    decision = answer.decision
    found = {
        "decision": decision.outcome,
        "reason": answer.reason,
        "route": decision.route and decision.route.replace("${", "$${"),
        "user": decision.user,
    }

    def text(value: str) -> str:
        return utf8(value).replace("${", "$${").replace(DECISION_ID, "${decision_id}")

    found |= {"status": answer.status}
    if answer.allowed:
        names = sorted({name.lower() for name in answer.removed})
        return found | {"headers": forwarded, "absent": names}
    return found | {"response_headers": {k: text(v) for k, v in answer.headers.items()}, "body": text(answer.denied.body)}


UNSAID: dict[str, dict[str, int]] = {
    "paths": {"bytes": 7, "path": 2},
    "routes": {"message": 22, "path": 1, "method": 9, "another scope": 1},
    "credentials": {"bytes": 9, "map form": 1},
    "act_as": {"bytes": 2, "map form": 4},
    "order": {"method": 2, "our fault": 1},
    "answers": {"message": 3, "our fault": 7, "method": 1},
    "headers": {},
    "tokens": {},
    "jwt": {"no scopes": 10},
    "monitor": {"message": 3, "our fault": 1},
}
"""How many vectors are no case of a suite, by cause; there are 2,306 others."""


@pytest.mark.parametrize("table", TABLES)
def test_a_suite_decides_as_the_server(table: str, worlds: Worlds, tmp_path: Path) -> None:
    unsaid: Counter[str] = Counter()
    groups: dict[str, tuple[VectorWorld, list[Said]]] = {}
    for case in CASES:
        if case.file == table:
            world, cases = groups.setdefault(case.group, (worlds(case), []))
            try:
                cases.append(said(case, world))
            except UnsayableError as error:
                unsaid[str(error)] += 1
    assert unsaid == UNSAID[table]
    for group, (world, cases) in groups.items():
        if not cases:
            continue
        file = tmp_path / f"{group}.yaml"
        file.write_text("cases:\n" + "".join(case.text for case in cases))
        configuration = world.world.configuration
        (suite,) = read_suites([file], configuration)
        runner = Runner(configuration, now=0.0)
        for written, vector, result in zip(suite.cases, cases, runner.run(suite.cases), strict=True):
            assert result.passed, (result.differences, result.error, vector.text)
            assert (runner.answer(written).forwarded or {}).keys() == vector.headers.keys(), vector.text


def test_every_cause_is_met() -> None:
    assert {cause for causes in UNSAID.values() for cause in causes} == set(UNSAYABLE)
