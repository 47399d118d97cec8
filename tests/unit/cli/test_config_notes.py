"""`extauthz config check`: what it notes of a configuration that is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import configured, run, told
from tests.support.world import CLIENT, ISSUER

OKTA = {"provider": "okta", "issuer": ISSUER, "client_ids": [CLIENT], "audience": "api://default"}
OIDC = {"provider": "oidc", "issuer": "https://sso.acme.com", "client_ids": ["web"], "audience": "api"}


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ([OKTA], "okta"),
        ([OIDC | {"scopes": "all"}], "oidc"),
        ([OKTA, OIDC | {"scopes": "all"}], "okta, oidc"),
        ([OKTA | {"scopes": ["search", "chat", "docpermissions"]}], "okta"),
        ([OKTA | {"scopes": ["SEARCH"]}], None),
        ([OKTA | {"scopes": "claim"}, OIDC | {"scope_claim": "permissions"}], None),
    ],
)
def test_it_says_in_one_line_that_tokens_hold_everything(tmp_path: Path, entries: list[dict[str, Any]], names: str | None) -> None:
    folder = configured(tmp_path, oauth={"providers": entries})
    result = run(folder, "config", "check")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("note: ")]
    notes = told(folder, "config", "check")["notes"]
    assert (len(lines), len(notes)) == ((0, 0) if names is None else (1, 1))
    assert all(
        f"tokens of {names} hold every scope of the vocabulary" in text for text in (*lines, *(note["message"] for note in notes))
    )
