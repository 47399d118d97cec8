"""`extauthz token`: many at once, lists and their pages, rotation, revocation, peppers."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from extauthz.cli.rendering import progress
from tests.support.command_line import GOOD, SETTINGS, configured, created, folder, run, told
from tests.support.narrow_terminal import Terminal
from tests.support.several_tokens import DAY, NOW, opened, several
from tests.support.waiting import eventually

__all__ = ["folder", "several"]


def with_scopes(folder: Path, **changes: Any) -> None:
    """Write the configuration with another vocabulary; the routes stay."""
    (folder / "extauthz.yaml").write_text(json.dumps(SETTINGS | changes))


def ids(folder: Path, *flags: str) -> str:
    """Return the first letters of the ids that a list shows."""
    return "".join(row["id"][0] for row in told(folder, "token", "list", *flags)["tokens"])


# --- many at once

ORDERS = """\
- {description: a notebook, permission: user, user: Ana@ACME.com, scopes: [search, CHAT], expires: 90d}
- description: the crawler
  permission: GLOBAL
  scopes: SEARCH
  expires: 12h
"""


def from_file(folder: Path, text: str, *flags: str) -> Any:
    (folder / "orders.yaml").write_text(text)
    return run(folder, "token", "create", "--from-file", str(folder / "orders.yaml"), *flags)


def test_many_tokens_are_made_at_once(folder: Path) -> None:
    result = from_file(folder, ORDERS, "--json")
    assert result.exit_code == 0, result.output
    made = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["permission"], row["user"], row["scopes"]) for row in made] == [
        ("USER", "ana@acme.com", ["CHAT", "SEARCH"]),
        ("GLOBAL", None, ["SEARCH"]),
    ]
    for row in made:
        assert told(folder, "token", "verify", "--store", text=row["token"])["verdict"] == "active"


def test_the_secrets_of_many_tokens_are_never_cut(folder: Path) -> None:
    result = from_file(folder, ORDERS)
    lines = result.stdout.splitlines()[2:]
    assert [re.fullmatch(r"glean_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}  (\S+) +(\S.*)", line).groups() for line in lines] == [  # type: ignore[union-attr]
        ("ana@acme.com", "a notebook"),
        ("GLOBAL", "the crawler"),
    ]


def test_all_orders_are_checked_before_one_is_made(folder: Path) -> None:
    wrong = ORDERS + (
        "- {description: '', permission: USER, user: eve@evil.com, scopes: [NOPE], expires: 400d}\n"
        "- {description: x, permission: ROOT, scopes: [SEARCH], expires: soon, colour: red}\n"
        "- just text\n"
        "- {description: x, permission: ANONYMOUS, user: ana@acme.com, scopes: [a b], expires: 1d}\n"
    )
    result = from_file(folder, wrong)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no token was made\n")
    file = folder / "orders.yaml"
    for line in (
        "6: [2].description: write 1 to 200 printable characters",
        "6: [2].expires: must lie ahead, at most 365 days",
        "6: [2].scopes: 'NOPE' is not one of CHAT, DOCPERMISSIONS, SEARCH",
        "6: [2].user: act_as in the configuration does not allow eve@evil.com",
        "7: [3].permission: write GLOBAL, USER or ANONYMOUS",
        "7: [3].expires: 'soon' is not a length of time: write a number and h, d, w or y",
        "7: [3].colour: unknown key: write description, permission, user, scopes, expires",
        "8: [4].permission: write GLOBAL, USER or ANONYMOUS",
        "8: [4].description: write 1 to 200 printable characters",
        "9: [5].scopes[0]: 'a b' is not a scope name",
        "9: [5].user: a ANONYMOUS token has no user",
    ):
        assert f"  {file}:{line}" in result.stderr
    assert "[3].user" not in result.stderr
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write a list of orders"),
        ("[]", "write a list of orders"),
        ("a: b", "write a list of orders"),
        ("- [", "not YAML"),
        ("- {}\n- *x", "aliases"),
        ("- {}\n" * 10_001, "more than 10000 orders"),
    ],
    ids=["empty", "none", "mapping", "broken", "alias", "too many"],
)
def test_a_file_that_is_no_list_of_orders(folder: Path, text: str, message: str) -> None:
    result = from_file(folder, text)
    assert result.exit_code == 1
    assert message in result.stderr


def test_flags_do_not_go_with_a_file(folder: Path) -> None:
    result = from_file(folder, ORDERS, "--scope", "SEARCH")
    assert (result.exit_code, "--scope does not go with --from-file" in result.stderr) == (2, True)
    result = run(folder, "token", "create", "--permission", "USER", "--scope", "SEARCH", "--description", "d")
    assert (result.exit_code, "Missing option '--expires'" in result.stderr) == (2, True)


def test_many_tokens_are_one_change(folder: Path) -> None:
    created(folder)
    with opened(folder) as store:
        head, _ = store.audit_head()
    many = "".join(ORDERS.replace("notebook", f"notebook {number}") for number in range(1500))
    result = from_file(folder, many, "--json")
    assert result.exit_code == 0
    assert len(set(result.stdout.splitlines())) == 3000
    with opened(folder) as store:
        assert store.audit_head()[0] == head + 3000
        assert len({row.at for row in store.audit_page(head, 3000)}) == 1


def test_progress_is_shown_on_a_terminal_when_it_takes_long() -> None:
    for terminal, patience, shown in ((True, 0.0, True), (True, 60.0, False), (False, 0.0, False)):
        screen = io.StringIO()
        with progress("7 tokens", 7, console=Console(file=screen, force_terminal=terminal), patience=patience) as bar:
            bar.advance(bar.task_ids[0])
            if shown:
                eventually(lambda screen=screen: "7 tokens" in screen.getvalue(), seconds=10)  # type: ignore[misc]
        assert ("7 tokens" in screen.getvalue()) is shown


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_prints_its_lines_to_a_terminal_has_no_bar_beside_them(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is printed meanwhile goes where it belongs: a library that draws would take it for its own."""
    output, screen = Terminal("utf-8"), io.StringIO()
    monkeypatch.setattr(output, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", output)
    console = Console(file=screen, force_terminal=True)
    with progress("7 tokens", 7, console=console, patience=0.0, prints=True):
        if not is_terminal:
            eventually(lambda: "7 tokens" in screen.getvalue(), seconds=10)
        sys.stdout.write("a secret\n")
    assert (output.seen.getvalue(), "a secret" in screen.getvalue()) == (b"a secret\n", False)
    assert ("7 tokens" in screen.getvalue()) is not is_terminal


def test_an_anonymous_token_with_a_scope_that_is_of_no_use_is_a_warning(folder: Path) -> None:
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH, anonymous: true}]')
    result = run(folder, "token", "create", "--permission", "ANONYMOUS", "--scope", "SEARCH", "--scope", "CHAT", *GOOD)
    assert result.exit_code == 0
    assert "warning: --scope: no route with anonymous: true asks for CHAT:" in result.stderr
    assert run(folder, "token", "create", "--permission", "ANONYMOUS", "--scope", "SEARCH", *GOOD).stderr == ""


# --- lists


def test_tokens_of_before_hold_their_scopes_by_the_names_of_now(folder: Path) -> None:
    """Names were kept in upper case once: a list finds such tokens, and they can be rotated."""
    (folder / "routes.yaml").write_text('routes: [{match: "GET /a", scope: "READ:ITEMS"}]')
    with_scopes(folder, scopes=["READ:ITEMS", "SEARCH"])
    before = created(folder, *("--permission", "ANONYMOUS", "--scope", "READ:ITEMS"))["id"]
    (folder / "routes.yaml").write_text('routes: [{match: "GET /a", scope: "read:items"}]')
    with_scopes(folder, scopes=["read:items", "SEARCH"])
    now = created(folder, *("--permission", "ANONYMOUS", "--scope", "read:items"))["id"]
    assert {row["id"]: row["scopes"] for row in told(folder, "token", "list", "--scope", "read:items")["tokens"]} == {
        now: ["read:items"],
        before: ["READ:ITEMS"],
    }
    assert told(folder, "token", "list", "--scope", "search")["tokens"] == []
    refused = run(folder, "token", "create", "--permission", "ANONYMOUS", "--scope", "Read:Items", *GOOD)
    assert "'Read:Items' is not one of SEARCH, read:items" in refused.stderr
    assert run(folder, "token", "rotate", before).exit_code == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "cba"),
        (("--all",), "edcba"),
        (("--permission", "global"), "b"),
        (("--user", "BOB@acme.com"), "c"),
        (("--scope", "doc_permissions"), "c"),
        (("--expiring-within", "30d"), "a"),
        (("--unused-for", "90d"), "cb"),
        (("--unused-for", "90d", "--permission", "USER"), "c"),
        (("--pepper", "p1", "--all"), "edcba"),
        (("--pepper", "p2", "--all"), ""),
        (("--sort", "oldest"), "abc"),
        (("--sort", "expires-soonest", "--all"), "dabce"),
        (("--text", "a" * 12), "a"),
        (("--text", "NO SUCH"), ""),
        (("--sort", "recently-used"), "acb"),
    ],
)
def test_filters(several: Path, flags: tuple[str, ...], expected: str) -> None:
    new = (several / "new").read_text()
    found = [row["id"] for row in told(several, "token", "list", *flags)["tokens"]]
    assert "".join(token_id[0] for token_id in found if token_id != new) == expected


@pytest.mark.parametrize(
    "flags",
    [
        ("--user", "bob"),
        ("--scope", "a b"),
        ("--expiring-within", "30"),
        ("--unused-for", "x"),
        ("--after", "x"),
        ("--limit", "0"),
        ("--sort", "x"),
        ("--text", "x" * 201),
    ],
)
def test_filters_that_cannot_be_read(several: Path, flags: tuple[str, str]) -> None:
    result = run(several, "token", "list", *flags)
    assert (result.exit_code, flags[0] in result.stderr) == (2, True)


def test_pages_follow_each_other_by_key(several: Path) -> None:
    everything = told(several, "token", "list", "--all")
    assert everything["after"] is None
    found: list[dict[str, Any]] = []
    cursor: tuple[str, ...] = ()
    pages = 0
    while True:
        page = told(several, "token", "list", "--all", "--limit", "2", *cursor)
        found += page["tokens"]
        pages += 1
        if page["after"] is None:
            break
        cursor = ("--after", page["after"])
    assert (found, pages) == (everything["tokens"], 3)
    result = run(several, "token", "list", "--all", "--limit", "2")
    assert re.search(r"--after after-[0-9]+-[0-9A-Za-z]{12}-[0-9a-f]{12}$", result.stderr.strip())
    assert len(result.stdout.splitlines()) == 3


def test_nothing_to_list(folder: Path) -> None:
    created(folder)
    assert "No such tokens" in run(folder, "token", "list", "--permission", "GLOBAL").stdout
    assert told(folder, "token", "list", "--permission", "GLOBAL") == {"tokens": [], "after": None}


def test_a_token_that_is_pasted_into_a_list_is_found_by_its_id(folder: Path) -> None:
    made = created(folder)
    assert [row["id"] for row in told(folder, "token", "list", "--text", f"Bearer {made['token']}")["tokens"]] == [made["id"]]
    secret = made["token"].split("_")[2]
    result = run(folder, "token", "list", "--text", secret)
    assert (result.exit_code, "--text" in result.stderr) == (2, True)
    assert secret[:12] not in result.output


def test_show_tells_the_use(several: Path) -> None:
    shown = told(several, "token", "show", "a" * 12)
    assert shown["last_used_from"] == "10.0.0.0/24"
    assert shown["last_used_at"].endswith("Z")
    assert "last_used_from 10.0.0.0/24" in run(several, "token", "show", "a" * 12).stdout


def test_a_secret_in_place_of_an_id_is_not_repeated(folder: Path) -> None:
    made = created(folder)
    for command in (("show",), ("rotate",), ("revoke", "--yes")):
        result = run(folder, "token", *command, made["token"])
        assert result.exit_code == 2
        assert "give it alone" in result.stderr
        assert made["token"][20:] not in result.output


# --- rotation


def test_rotation_overlaps(folder: Path) -> None:
    old = created(folder)
    new = told(folder, "token", "rotate", old["id"], "--overlap", "2h")
    for field in ("permission", "user", "scopes", "description"):
        assert new[field] == old[field]
    assert (new["rotated_from"], new["old"]["rotated_to"], new["old"]["status"]) == (old["id"], new["id"], "active")
    with opened(folder) as store:
        first, second = store.get(old["id"]), store.get(new["id"])
    assert first is not None
    assert second is not None
    assert first.expires_at == second.created_at + 7200
    assert second.expires_at == second.created_at + 90 * DAY
    for made in (old, new):
        assert told(folder, "token", "verify", "--store", text=made["token"])["verdict"] == "active"
    assert told(folder, "token", "show", new["id"])["rotated_from"] == old["id"]
    assert told(folder, "token", "show", old["id"])["rotated_to"] == new["id"]


def test_rotation_without_an_overlap_ends_the_old_token(folder: Path) -> None:
    old = created(folder)
    result = run(folder, "token", "rotate", old["id"], "--overlap", "0s")
    assert result.exit_code == 0
    assert f"It follows token {old['id']}, which ends at " in result.stdout
    assert len(re.findall(r"^  glean_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$", result.stdout, re.MULTILINE)) == 1
    assert run(folder, "token", "verify", "--store", text=old["token"]).exit_code == 1


def test_an_overlap_does_not_lengthen_a_life(several: Path) -> None:
    new = told(several, "token", "rotate", "a" * 12, "--overlap", "90d")
    with opened(several) as store:
        old, successor = store.get("a" * 12), store.get(new["id"])
    assert old is not None
    assert successor is not None
    assert old.expires_at == NOW + 10 * DAY
    assert successor.expires_at - successor.created_at == 310 * DAY


@pytest.mark.parametrize(
    ("token", "message"),
    [("d" * 12, "is expired"), ("e" * 12, "is revoked"), ("a" * 12, "was rotated before"), ("nope", "no token has the id")],
)
def test_what_cannot_be_rotated(several: Path, token: str, message: str) -> None:
    told(several, "token", "rotate", "a" * 12)
    with opened(several) as store:
        before = len(store.list_tokens())
    result = run(several, "token", "rotate", token)
    assert (result.exit_code, message in result.stderr) == (1, True), result.stderr
    with opened(several) as store:
        assert len(store.list_tokens()) == before


def test_a_successor_must_be_allowed_itself(several: Path) -> None:
    configured(several, scopes=["SEARCH"], act_as={"allow": ["bob@acme.com"]})
    result = run(several, "token", "rotate", "a" * 12)
    assert result.exit_code == 1
    assert "user: act_as in the configuration does not allow ana@acme.com" in result.stderr
    assert "scope: 'DOCPERMISSIONS' is not one of SEARCH" in run(several, "token", "rotate", "c" * 12).stderr


def test_an_overlap_that_cannot_be_read(folder: Path) -> None:
    result = run(folder, "token", "rotate", "a" * 12, "--overlap", "1")
    assert (result.exit_code, "--overlap" in result.stderr) == (2, True)


# --- revocation


def test_what_was_and_what_was_not_revoked(several: Path) -> None:
    result = run(several, "token", "revoke", "a" * 12, "e" * 12, "z" * 12, "--why", "laptop stolen", "--yes")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"Token {'a' * 12} is revoked."
    assert f"Token {'e' * 12} was not revoked: it was revoked before, at " in result.stdout
    assert f"Token {'z' * 12} was not revoked: no token has this id." in result.stdout
    shown = told(several, "token", "show", "a" * 12)
    assert (shown["revoked_why"], shown["status"]) == ("laptop stolen", "revoked")
    assert told(several, "token", "revoke", "c" * 12, "--yes") == {"revoked": ["c" * 12], "not_revoked": []}


def test_a_chain_is_revoked_as_a_whole(folder: Path) -> None:
    first = created(folder)["id"]
    second = told(folder, "token", "rotate", first)["id"]
    third = told(folder, "token", "rotate", second)["id"]
    assert sorted(told(folder, "token", "revoke", second, "--chain", "--yes")["revoked"]) == sorted([first, second, third])


def test_without_chain_the_others_stay(folder: Path) -> None:
    first = created(folder)["id"]
    second = told(folder, "token", "rotate", first)["id"]
    assert told(folder, "token", "revoke", first, "--yes")["revoked"] == [first]
    assert told(folder, "token", "show", second)["status"] == "active"


def test_all_tokens_of_a_user_are_revoked(several: Path) -> None:
    told(several, "token", "rotate", "a" * 12)
    done = told(several, "token", "revoke", "--all-of-user", "ANA@acme.com", "--yes")["revoked"]
    assert len(done) == 3  # "a", its successor, and "d", which is expired
    assert told(several, "token", "list", "--user", "ana@acme.com")["tokens"] == []
    assert [row["id"] for row in told(several, "token", "list", "--user", "bob@acme.com")["tokens"]] == ["c" * 12]
    again = run(several, "token", "revoke", "--all-of-user", "ana@acme.com", "--yes")
    assert (again.exit_code, "--all-of-user: ana@acme.com has no active token" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "name the IDs of tokens, or --all-of-user"),
        (("a" * 12, "--all-of-user", "ana@acme.com"), "and not both"),
        (("--all-of-user", "ana@acme.com", "--chain"), "--chain goes with IDs"),
        (("--all-of-user", "ana", "--yes"), "--all-of-user"),
        (("a" * 12, "--why", "x\ny"), "--why"),
        (("a" * 12, "--why", "x" * 201), "--why"),
        (("a" * 12,), "--yes is missing"),
        (("--all-of-user", "ana@acme.com"), "--yes is missing"),
    ],
)
def test_flags_of_revoke_that_do_not_go(several: Path, flags: tuple[str, ...], message: str) -> None:
    result = run(several, "token", "revoke", *flags)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert told(several, "token", "show", "a" * 12)["status"] == "active"


# --- peppers


def test_new_tokens_use_the_newest_pepper_and_old_ones_stay_good(folder: Path) -> None:
    old = created(folder)
    (folder / "data" / "pepper-2").write_text("e" * 64)
    peppers = [{"id": "p2", "file": "data/pepper-2"}, {"id": "p1", "file": "data/pepper"}]
    section = {"store": "sqlite:///data/tokens.db", "peppers": peppers}
    configured(folder, tokens=section)
    new = created(folder)
    assert [told(folder, "token", "show", made["id"])["pepper_id"] for made in (old, new)] == ["p1", "p2"]
    for made in (old, new):
        assert told(folder, "token", "verify", "--store", text=made["token"])["verdict"] == "active"
    assert told(folder, "token", "rotate", old["id"])["pepper_id"] == "p2"
    assert told(folder, "audit", "verify")["whole"] is True

    configured(folder, tokens=section | {"peppers": peppers[:1]})
    result = run(folder, "token", "create", "--permission", "GLOBAL", "--scope", "CHAT", *GOOD)
    assert result.exit_code == 1
    needed = (
        f"tokens.peppers: 1 active token needs pepper 'p1', which is not listed ({old['id']}): list it again, behind the newest"
    )
    assert needed in result.stderr
    broken = run(folder, "audit", "verify")
    assert (broken.exit_code, "tokens.peppers does not list 'p1'" in broken.stderr) == (1, True)


def two_peppers(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a token of p1, and list p2 alone; return the token and the section that lists both."""
    old = created(folder)
    (folder / "data" / "pepper-2").write_text("e" * 64)
    peppers = [{"id": "p2", "file": "data/pepper-2"}, {"id": "p1", "file": "data/pepper"}]
    both = {"store": "sqlite:///data/tokens.db", "peppers": peppers}
    configured(folder, tokens=both | {"peppers": peppers[:1]})
    return old, both


def test_tokens_of_a_lost_pepper_can_be_revoked_and_nothing_else_be_done(folder: Path) -> None:
    old, both = two_peppers(folder)
    for command in (("rotate", old["id"]), ("create", "--permission", "GLOBAL", "--scope", "CHAT", *GOOD)):
        assert f"which is not listed ({old['id']})" in run(folder, "token", *command).stderr
    assert "which is not listed" in run(folder, "token", "leaked", text=old["token"]).stderr
    assert told(folder, "token", "revoke", old["id"], "--yes")["revoked"] == [old["id"]]
    configured(folder, tokens=both)
    assert told(folder, "audit", "verify")["whole"] is True


def test_a_pepper_is_retired_when_no_active_token_needs_it(folder: Path) -> None:
    old, both = two_peppers(folder)
    assert told(folder, "store", "status")["missing_peppers"] == ["p1"]
    told(folder, "token", "revoke", "--all-of-user", "ana@acme.com", "--yes")
    status = told(folder, "store", "status")
    assert (status["peppers"], status["missing_peppers"]) == ({"p1": 0}, [])
    assert "NOT LISTED" not in run(folder, "store", "status").stdout
    assert created(folder)["status"] == "active"
    # What it signed is checked with a configuration that still lists it.
    assert run(folder, "audit", "verify").exit_code == 1
    configured(folder, tokens=both)
    assert told(folder, "audit", "verify")["whole"] is True
    assert "revoked" in run(folder, "token", "verify", "--store", text=old["token"]).stdout


def test_only_create_makes_a_pepper(folder: Path) -> None:
    run(folder, "store", "migrate")
    fake = f"glean_{'a' * 12}_{'b' * 49}"
    for command in (("token", "leaked"), ("audit", "verify"), ("token", "revoke", "--all-of-user", "a@acme.com", "--yes")):
        assert run(folder, *command, text=fake).exit_code != 0
    assert not (folder / "data" / "pepper").exists()
