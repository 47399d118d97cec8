"""Secrets that somebody found: `token verify`, `token leaked`, and the expressions that scanners get from docs/tokens.md."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from extauthz.core.tokens import ENTROPY_BYTES, _checksum, mint
from tests.test_cli import configured, created, run, told

DOCUMENT = (Path(__file__).parent.parent / "docs" / "tokens.md").read_text("utf-8")
WITH_ROLES = {"roles": {"admins": ["ana@acme.com"], "super_admins": ["sue@acme.com"]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    return configured(tmp_path, **WITH_ROLES)


def other(token: str) -> str:
    """Return a token of another secret, which is well-formed."""
    return mint(token.partition("_")[0], os.urandom(ENTROPY_BYTES)).text


def with_id_of(token: str) -> str:
    """Return a well-formed token with the id of another and a secret of its own."""
    prefix, token_id, rest = token.split("_")
    body = f"{prefix}_{token_id}_{'z' + rest[1:43]}"
    return body + _checksum(body)


# --- verify


def test_a_token_is_verified_offline(folder: Path) -> None:
    token = mint("glean", os.urandom(ENTROPY_BYTES)).text
    assert told(folder, "token", "verify", text=f"{token}\n") == {"verdict": "well-formed", "id": token.split("_")[1]}
    (folder / "token.txt").write_text(token)
    assert run(folder, "token", "verify", str(folder / "token.txt")).exit_code == 0
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"), "wrong checksum"),
        (lambda token: token[:-1], "malformed"),
        (lambda token: "Bearer " + token, "malformed"),
        (lambda token: "", "malformed"),
        (lambda token: mint("acme", os.urandom(ENTROPY_BYTES)).text, "unknown prefix 'acme'"),
    ],
    ids=["checksum", "short", "bearer", "empty", "prefix"],
)
def test_a_token_that_is_none(folder: Path, change: object, verdict: str) -> None:
    token = mint("glean", os.urandom(ENTROPY_BYTES)).text
    text = change(token)  # type: ignore[operator]
    result = run(folder, "token", "verify", text=text)
    assert (result.exit_code, verdict in result.stdout) == (1, True)
    assert token[20:60] not in result.output


def test_a_prefix_of_old_is_accepted(folder: Path) -> None:
    peppers = {"store": "sqlite:///data/tokens.db", "peppers": [{"id": "p1", "file": "data/pepper"}], "accept_prefixes": ["acme"]}
    configured(folder, tokens=peppers)
    assert told(folder, "token", "verify", text=mint("acme", os.urandom(ENTROPY_BYTES)).text)["verdict"] == "well-formed"


def test_the_store_is_asked(folder: Path) -> None:
    made = created(folder)
    assert told(folder, "token", "verify", "--store", text=made["token"])["user"] == "ana@acme.com"
    for text, verdict in ((other(made["token"]), "unknown"), (with_id_of(made["token"]), "wrong secret")):
        result = run(folder, "token", "verify", "--store", "--json", text=text)
        assert result.exit_code == 1
        assert f'"verdict": "{verdict}"' in result.stdout
        assert "ana@acme.com" not in result.stdout
    run(folder, "token", "revoke", made["id"], "--yes")
    result = run(folder, "token", "verify", "--store", text=made["token"])
    assert (result.exit_code, "revoked" in result.stdout) == (1, True)


def test_a_token_on_the_command_line_is_refused_and_not_repeated(folder: Path) -> None:
    made = created(folder)
    for command in ("verify", "leaked"):
        for arguments in ((made["token"],), ("-", made["token"])):
            result = run(folder, "token", command, *arguments, text="")
            assert result.exit_code in (1, 2)
            assert made["token"][20:] not in result.output
    assert told(folder, "token", "show", made["id"])["status"] == "active"


# --- leaked


def test_leaked_tokens_are_revoked_if_they_are_ours(folder: Path) -> None:
    mine, revoked, other_mine = created(folder), created(folder), created(folder)
    run(folder, "token", "revoke", revoked["id"], "--yes")
    broken = mine["token"][:-1] + ("a" if mine["token"][-1] != "a" else "b")
    found = [mine["token"], revoked["token"], other(mine["token"]), with_id_of(other_mine["token"]), broken]
    (folder / "report.txt").write_text(f'[{{"Secret": "{found[0]}"}}]\nTOKEN_{found[0]}\nurl?t={found[1]}&x\n' + "\n".join(found))
    told_by = run(folder, "token", "leaked", str(folder / "report.txt"), "--json")
    assert told_by.exit_code == 0
    expected = ["revoked", "revoked before", "unknown to this store", "wrong secret: not this token", "wrong checksum: not a token"]
    pairs = [(text.split("_")[1], outcome) for text, outcome in zip(found, expected, strict=True)]
    assert told_by.stdout == as_printed(pairs)
    for text in found:
        assert text.split("_")[2] not in told_by.output
    shown = told(folder, "token", "show", mine["id"])
    assert (shown["status"], shown["revoked_why"]) == ("revoked", "leaked")
    assert told(folder, "token", "show", other_mine["id"])["status"] == "active"


def as_printed(pairs: list[tuple[str, str]]) -> str:
    return json.dumps({"found": [{"id": token_id, "outcome": outcome} for token_id, outcome in pairs]}) + "\n"


def test_nothing_of_ours_is_exit_code_1(folder: Path) -> None:
    made = created(folder)
    result = run(folder, "token", "leaked", "-", text="nothing here")
    assert (result.exit_code, "they begin with glean and '_'" in result.stderr) == (1, True)
    assert run(folder, "token", "leaked", "-", text=other(made["token"])).exit_code == 1


def test_an_admin_cannot_end_a_leaked_global_token(folder: Path) -> None:
    made = created(folder, "--permission", "GLOBAL", "--scope", "CHAT")
    result = run(folder, "token", "leaked", "--as", "ana@acme.com", text=made["token"])
    assert (result.exit_code, "GLOBAL needs a super admin" in result.stderr) == (1, True)
    assert told(folder, "token", "show", made["id"])["status"] == "active"
    assert run(folder, "token", "leaked", "--as", "sue@acme.com", text=made["token"]).exit_code == 0


# --- what scanners get


def rules() -> list[str]:
    """Return the expressions of the document: the one of its gitleaks rule, and the one in the text."""
    block = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None
    rule = tomllib.loads(block[1])["rules"][0]
    assert rule["keywords"] == ["glean_"]
    plain = re.search(r"```text\n(.*?)\n```", DOCUMENT, re.DOTALL)
    assert plain is not None
    return [rule["regex"], plain[1]]


@pytest.mark.parametrize("expression", rules())
def test_scanners_find_tokens_and_nothing_else(expression: str) -> None:
    find = re.compile(expression, re.ASCII)
    assert "(?=" not in expression, "Go has no look-around"
    assert "(?<" not in expression
    for number in range(300):
        token = mint("glean", os.urandom(ENTROPY_BYTES)).text
        frames = (token, f'"{token}"', f"Authorization: Bearer {token}", f"T={token}\n", f"https://x/?t={token}&y", f"x: {token},")
        found = find.search(f"before {frames[number % len(frames)]} after")
        assert found is not None
        assert token in found[0]
        head, token_id, rest = token.split("_")
        for fake in (
            f"{head}_{token_id}_{rest[:-1]}",
            f"{head}_{token_id}_{rest}0",
            f"{head}_{token_id[:-1]}_{rest}",
            f"{head}-{token_id}-{rest}",
            f"x{token}",
            f"{head.upper()}_{token_id}_{rest}",
            f"{head}_{token_id}_{rest[:20]}-{rest[21:]}",
            f"glean_{token_id}",
        ):
            assert find.search(f" {fake} ") is None, fake
