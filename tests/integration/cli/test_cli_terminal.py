"""Commands at a real terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from extauthz.config.loader import load
from tests.support.command_line import created, folder, told
from tests.support.several_tokens import opened, several

__all__ = ["folder", "several"]


def at_terminal(folder: Path, *arguments: str, answer: str, columns: int = 80) -> tuple[int, str]:
    """Run a command for a configuration on a terminal; return its exit code and what the terminal showed."""
    return typed(*arguments, "--config", str(folder / "extauthz.yaml"), answer=answer, columns=columns)


def typed(*arguments: str, answer: str, columns: int = 80) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and what the terminal showed."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "extauthz", *arguments]
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    os.write(master, answer.encode())
    shown = b""
    try:
        while block := os.read(master, 4096):
            shown += block
    except OSError:  # the other side is closed
        pass
    os.close(master)
    return process.wait(timeout=20), shown.decode().replace("\r\n", "\n")


def test_a_person_at_a_terminal_is_asked(several: Path) -> None:
    code, shown = at_terminal(several, "token", "revoke", "a" * 12, answer="n\n")
    assert (code, f"Revoke {'a' * 12} (ana@acme.com, d), for good? [y/N]" in shown) == (1, True)
    assert told(several, "token", "show", "a" * 12)["status"] == "active"
    code, shown = at_terminal(several, "token", "revoke", "a" * 12, answer="y\n")
    assert (code, "is revoked." in shown) == (0, True)
    with opened(several) as store:
        assert re.fullmatch(r"cli on \S+, /dev/\S+", store.audit_page(store.audit_head()[0] - 1)[0].source)


def test_init_asks_for_what_no_flag_says(tmp_path: Path) -> None:
    answers = ["Orders", "read:orders, write:orders", "", "acme.com", "https://sso.acme.com/realms/acme", "web, phone", "orders"]
    code, shown = typed("init", str(tmp_path), answer="\n".join([*answers, ""]))
    assert code == 0, shown
    settings = load(tmp_path / "config" / "extauthz.yaml").settings
    assert (settings.realm, settings.scopes, settings.identity.prefix) == ("Orders", ["read:orders", "write:orders"], "x-extauthz-")
    assert settings.act_as.allow == ["*@acme.com"]
    assert settings.oauth is not None
    (entry,) = settings.oauth.entries
    assert (entry.provider, entry.client_ids, entry.audience) == ("keycloak", ["web", "phone"], ["orders"])
    code, shown = typed("init", str(tmp_path / "quiet"), "--yes", answer="")
    assert (code, "?" in shown) == (0, False), "--yes asks nothing"


@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_fits_the_terminal(several: Path, columns: int) -> None:
    created(several)
    _, shown = at_terminal(several, "token", "list", "--all", answer="", columns=columns)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    left_out = [line for line in lines if line.startswith("Left out")]
    lines = [line for line in lines if line not in left_out]
    assert re.match(r"id +status +expires +permission +description +scopes", lines[0])
    assert len(left_out) == (columns == 80)
    assert max(map(len, lines)) <= columns
    assert len([line for line in lines[1:] if re.match(r"[0-9A-Za-z]{12}  ", line)]) == 7
