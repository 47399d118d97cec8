"""`extauthz audit list`: which rows each flag leaves, page by page, and what stands against a flag that says nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extauthz.admin.audit_search import known_actions
from extauthz.admin.metadata import utc
from tests.support.command_line import configured, created, run, told
from tests.support.several_tokens import DAY

ROLES = {"super_admins": ["ana@acme.com"]}
SECRET = "glean_4fK2pQ9sXb1Z_gJ7nB2mXq0RvT5yLc8KdWz3HfPs6UaEo1iN4tMbVxQ9rA7kYw"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Five rows: create, create by Ana, create and rotate, revoke by Ana; and the id of the first token."""
    folder = configured(tmp_path_factory.mktemp("audit"), roles=ROLES)
    first = created(folder)["id"]
    second = created(folder, "--permission", "ANONYMOUS", "--scope", "CHAT", "--as", "Ana@acme.com")["id"]
    assert run(folder, "token", "rotate", first).exit_code == 0
    assert run(folder, "token", "revoke", second, "--yes", "--as", "ana@acme.com").exit_code == 0
    return folder, first


def days_of(folder: Path) -> dict[str, str]:
    """Return the days of the rows and around them: midnight may come between two of them, and before they are read."""
    moments = [row["at"] for row in told(folder, "audit", "list")["rows"]]
    ends = {
        "<day before>": moments[0] - DAY,
        "<first day>": moments[0],
        "<last day>": moments[-1],
        "<day after>": moments[-1] + DAY,
    }
    return {name: (utc(moment) or "")[:10] for name, moment in ends.items()}


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["--actor", "Ana@ACME.com"], [2, 5]),
        (["--actor", "ana"], []),
        (["--action", "create"], [1, 2, 3]),
        (["--action", "create", "--actor", "ana@acme.com"], [2]),
        (["--action", "accept-restore"], []),
        (["--token", "<first>"], [1, 4]),
        (["--token", "glean_<first>_x"], [1, 4]),
        (["--since", "1h"], [1, 2, 3, 4, 5]),
        (["--since", "<first day>"], [1, 2, 3, 4, 5]),
        (["--since", "<day after>"], []),
        (["--until", "<day before>"], []),
        (["--until", "<last day>"], [1, 2, 3, 4, 5]),
        (["--until", "1h"], []),
        (["--limit", "2"], [4, 5]),
        (["--limit", "2", "--before", "4"], [2, 3]),
        (["--limit", "2", "--after", "1"], [2, 3]),
        (["--after", "0", "--limit", "1", "--action", "revoke"], [5]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_a_flag_leaves_the_rows_that_it_names(made: tuple[Path, str], flags: list[str], numbers: list[int]) -> None:
    folder, first = made
    for name, value in (days_of(folder) | {"<first>": first}).items():
        flags = [flag.replace(name, value) for flag in flags]
    assert [row["number"] for row in told(folder, "audit", "list", *flags)["rows"]] == numbers


@pytest.mark.parametrize("flag", ["--after", "--before"])
def test_the_pages_of_a_filter_hold_each_row_once(made: tuple[Path, str], flag: str) -> None:
    folder, _ = made
    place, rows = "0" if flag == "--after" else "6", []
    for _ in range(3):
        page = told(folder, "audit", "list", "--action", "create", "--limit", "1", flag, place)
        rows += [row["number"] for row in page["rows"]]
        place = str(page[flag.strip("-")])
    assert (sorted(rows), place) == ([1, 2, 3], "None")


def test_a_person_reads_how_to_go_on(made: tuple[Path, str]) -> None:
    folder, _ = made
    assert "There are older ones: repeat the command with --before 4" in run(folder, "audit", "list", "--limit", "2").stderr
    assert (
        "There are more: repeat the command with --after 3" in run(folder, "audit", "list", "--limit", "2", "--after", "1").stderr
    )
    assert run(folder, "audit", "list", "--action", "revoke", "--until", "1h").stdout == "No such rows.\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--action", "revok"], "Invalid value for --action: the audit knows no action 'revok', did you mean 'revoke'?"),
        (["--action", "zzz"], f"'zzz': write one of {', '.join(sorted(known_actions()))}"),
        (["--actor", SECRET], "Invalid value for --actor: this may be a secret"),
        (["--token", "x" * 201], "Invalid value for --token"),
        (["--since", "soon"], "Invalid value for '--since': 'soon': write a time like"),
        (["--until", "2026-02-30"], "Invalid value for '--until': '2026-02-30': write a time like"),
        (["--after", "1", "--before", "2"], "--after and --before do not go together"),
        (["--limit", "0"], "--limit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_that_says_nothing_is_an_error(made: tuple[Path, str], flags: list[str], message: str) -> None:
    folder, _ = made
    result = run(folder, "audit", "list", *flags)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert not re.search("4fK2pQ9sXb1Z_", result.output)


def test_tokens_that_somebody_made_and_that_end_soon(made: tuple[Path, str]) -> None:
    folder, first = made
    assert [row["id"] for row in told(folder, "token", "list", "--created-by", "nobody")["tokens"]] == []
    shown = told(folder, "token", "list", "--all", "--created-by", "ANA@acme.com")["tokens"]
    assert [row["created_by"] for row in shown] == ["ana@acme.com"]
    soon = [told(folder, "token", "list", flag, "2d")["tokens"] for flag in ("--expiring", "--expiring-within")]
    assert [[row["id"] for row in rows] for rows in soon] == [[first], [first]]
    refused = run(folder, "token", "list", "--created-by", SECRET)
    assert (refused.exit_code, "Invalid value for --created-by: this may be a secret" in refused.stderr) == (2, True)
