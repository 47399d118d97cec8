"""`extauthz demo --check`: what it compares, and the reasons that it takes from the decision log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from extauthz.cli.demo_session import logged_reason
from extauthz.demo.cases import CASES, ENVOY
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.launcher import Demo, Ports
from extauthz.demo.providers import IssuerRole
from extauthz.demo.wiring import Wiring
from extauthz.demo.wrong_tokens import WrongToken

BASE = "http://127.0.0.1:9002"


@pytest.mark.parametrize(
    ("decision_id", "reason"), [("d1", "token_audience"), ("d2", "allowed"), ("d9", "not in the decision log")]
)
async def test_a_reason_is_that_of_the_decision_of_this_id(tmp_path: Path, decision_id: str, reason: str) -> None:
    lines = [{"decision_id": "d0", "reason": "public"}, {"decision_id": "d1", "reason": "token_audience"}]
    text = "".join(f"{json.dumps(line)}\n" for line in [*lines, {"decision_id": "d2", "reason": "allowed"}])
    (tmp_path / "decisions").write_text(text)
    demo = Demo(Ports(), tmp_path, DemoIssuer(BASE), Wiring())
    demo.sidecar = await asyncio.create_subprocess_exec("cat", str(tmp_path / "decisions"), stdout=asyncio.subprocess.PIPE)
    assert await logged_reason(demo, decision_id) == reason
    await demo.sidecar.wait()


def test_every_provider_and_every_wrong_token_has_a_case() -> None:
    bearers = {header.partition("$")[2] for case in CASES for header in case.headers if "$" in header}
    wanted = {role.variable for role in IssuerRole} | {wrong.variable for wrong in WrongToken}
    assert len(wanted) == len(IssuerRole) + len(WrongToken)
    assert wanted <= bearers
    assert wanted <= DemoIssuer(BASE).examples("ana@acme.com").keys()


@pytest.mark.parametrize(
    ("title", "expected", "decision"),
    [
        ("oidc token: another audience", "401 token_invalid (token_audience)", "token_audience"),
        ("no token", "401 credential_missing", "credential_missing"),
        ("path trick", f"400 {ENVOY}", ""),
    ],
)
def test_what_is_expected_of_a_refusal(title: str, expected: str, decision: str) -> None:
    (case,) = [case for case in CASES if case.title == title]
    assert (case.expected, case.decision) == (expected, decision)
