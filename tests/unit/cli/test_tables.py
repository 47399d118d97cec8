"""Tables at terminals of several widths: what a person reads there, of tokens and of the audit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extauthz.cli.rendering import INDENT, WIDE
from tests.support.command_line import GOOD, configured, created, run
from tests.support.narrow_terminal import narrow_in

SCOPES = ["CHAT", "DOCPERMISSIONS", "ENTITIES", "FEEDBACK", "SEARCH", "SUMMARIZE"]
LONG = "The nightly crawler of the knowledge base, which reads all that is new since the day before"
ADDRESS = "maria-magdalena.von-hohenstein@acme.com"


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with tokens of each kind: one has many scopes, one long texts, one was rotated, one revoked."""
    folder = configured(tmp_path_factory.mktemp("tables"), scopes=SCOPES)
    rotated = created(folder)["id"]
    many = created(folder, "--permission", "GLOBAL", *(part for name in SCOPES for part in ("--scope", name)))["id"]
    flags = ("--permission", "USER", "--user", ADDRESS, "--scope", "SUMMARIZE", "--expires", "300d")
    assert run(folder, "token", "create", "--description", LONG, *flags).exit_code == 0
    revoked = created(folder, "--permission", "ANONYMOUS", "--scope", "SEARCH")["id"]
    assert run(folder, "token", "rotate", rotated, "--overlap", "1h").exit_code == 0
    assert run(folder, "token", "revoke", revoked, "--yes", "--why", "laptop stolen").exit_code == 0
    return folder, {"rotated": rotated, "many": many, "revoked": revoked}


def left_out(seen: str) -> list[str]:
    match = re.search(r"^Left out, because the terminal is too narrow: (.*)\. --json has them\.$", seen, re.MULTILINE)
    return match[1].split(", ") if match else []


def table(seen: str) -> list[str]:
    return [line for line in seen.splitlines() if not line.startswith("Left out")]


@pytest.mark.parametrize(
    ("columns", "flags", "missing"),
    [
        (30, (), ["permission", "description", "scopes", "last used"]),
        (50, (), ["description", "scopes", "last used"]),
        (50, ("--all",), ["description", "scopes", "last used"]),
        (80, (), ["last used"]),
        (80, ("--all",), ["last used"]),
        (120, (), []),
        (120, ("--all",), []),
    ],
)
def test_what_is_needed_least_is_left_out_first(
    ids: tuple[Path, dict[str, str]], columns: int, flags: tuple[str, ...], missing: list[str]
) -> None:
    folder, tokens = ids
    seen = narrow_in(folder, columns, "token", "list", *flags)
    assert left_out(seen) == missing
    assert max(map(len, table(seen))) <= columns
    assert [line for line in table(seen) if line != line.rstrip()] == []
    rows = {line.split()[0] for line in table(seen)[1:] if not line.startswith(" ")}
    assert ({tokens["rotated"], tokens["many"]} <= rows, tokens["revoked"] in rows) == (True, bool(flags))


def test_texts_go_on_below_and_no_scope_is_torn(ids: tuple[Path, dict[str, str]]) -> None:
    folder, tokens = ids
    lines = table(narrow_in(folder, 80, "token", "list", "--all"))
    column = lines[0].index("scopes")
    start = next(number for number, line in enumerate(lines) if line.startswith(tokens["many"]))
    end = next(number for number, line in enumerate([*lines, "x"]) if number > start and not line.startswith(" "))
    assert " ".join(line[column:] for line in lines[start:end]) == ", ".join(SCOPES)
    description = lines[0].index("description")
    begin = next(number for number, line in enumerate(lines) if line[description:].startswith("The nightly"))
    assert " ".join(line[description:column].strip() for line in lines[begin:])[: len(LONG)] == LONG


def test_without_a_terminal_a_row_is_a_line(ids: tuple[Path, dict[str, str]]) -> None:
    folder, _ = ids
    assert len(run(folder, "token", "list", "--all").stdout.splitlines()) == 1 + 5
    assert len(run(folder, "audit", "list").stdout.splitlines()) == 1 + 7


@pytest.mark.parametrize("columns", [50, 80, 120, None])
def test_a_row_of_the_audit_tells_what_it_changed(ids: tuple[Path, dict[str, str]], columns: int | None) -> None:
    folder, tokens = ids
    seen = run(folder, "audit", "list").stdout if columns is None else narrow_in(folder, columns, "audit", "list")
    lines = table(seen)
    assert max(map(len, lines)) <= (columns or WIDE)
    words = " ".join(" ".join(lines).split())
    assert re.search(rf"rotate {tokens['rotated']} .*expires_at: \S+ → \S+; rotated_to: [0-9A-Za-z]{{12}}", words)
    assert "revoked_why: laptop stolen" in words
    # Who, when and which token stand in the row.
    assert not re.search(r"revoked_by|revoked_at|created_by|[; ]id: ", words)
    is_below = columns in (50, 80)
    assert any(line.startswith(INDENT) for line in lines) == (is_below or columns == 120)
    assert ("changes" in lines[0]) == (not is_below)
    assert left_out(seen) == (["actor", "source"] if columns == 50 else [])


def test_a_wide_letter_takes_two_cells(tmp_path: Path) -> None:
    folder = configured(tmp_path)
    flags = ("--permission", "ANONYMOUS", "--scope", "CHAT", *GOOD, "--description", "日" * 40)
    assert run(folder, "token", "create", *flags).exit_code == 0
    seen = table(narrow_in(folder, 80, "token", "list"))
    assert sum(line.count("日") for line in seen) == 40
    assert max(len(line) + line.count("日") for line in seen) <= 80
