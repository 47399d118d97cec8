"""`extauthz explain` with issued tokens and --store, and `extauthz replay --store`: alike on either database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from extauthz.cli import main
from tests.support.command_line import configured, created
from tests.support.postgresql import MakePlace, Place, PostgresServer

pytest_plugins = ["tests.support.postgresql"]

PASSWORD = "s3cret-of-a-reader"
URL = "https://api.acme.com"
ROUTES = """routes:
  - {match: "POST /search", scope: SEARCH}
  - {match: "POST /chat", scope: CHAT}
  - {match: "POST /both", all_of: [SEARCH, DOCPERMISSIONS]}
  - {match: "POST /either", any_of: [CHAT, DOCPERMISSIONS]}
  - {match: "POST /users", scope: SEARCH, accept: [user]}
"""
GLOBAL = ("--permission", "GLOBAL", "--scope", "search")


class Stored:
    """A configuration whose tokens are in a database: one for everybody, one of ana's, and one of hers that is revoked."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        self.write(place.where)
        self.everybody, self.ana, self.revoked = created(folder, *GLOBAL), created(folder), created(folder)
        assert self.run("token", "revoke", self.revoked["id"], "--yes", "--config", str(self.file)).exit_code == 0

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "extauthz.yaml"

    def write(self, where: Path | str, **more: object) -> None:
        """Write the configuration; `where` is a file, or the address of a database."""
        store = f"sqlite:///{where}" if isinstance(where, Path) else where
        tokens = {"store": store, "peppers": [{"id": "p1", "file": "pepper"}], **more}
        configured(self.folder, tokens=tokens, scopes=["SEARCH", "CHAT", "DOCPERMISSIONS", "FEED"])
        (self.folder / "routes.yaml").write_text(ROUTES)

    def run(self, *arguments: str) -> Result:
        """Run a command to its end."""
        return CliRunner().invoke(main, arguments)

    def explained(self, *words: str) -> dict[str, Any]:
        """Explain a request."""
        done = self.run("explain", "--config", str(self.file), "--json", *words)
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == (0 if found["outcome"] == "allow" else 1), done.output
        assert not [each for each in (self.everybody, self.ana, self.revoked) if each["token"].split("_")[2] in done.output]
        return found

    def sent(self, token: str, path: str, *flags: str) -> tuple[Any, ...]:
        """Explain a POST with a token: what it comes to, and the last thing that would make it pass."""
        found = self.explained(*flags, "curl", "-d", "x", f"{URL}{path}", "-H", f"Authorization: Bearer {token}")
        return found["outcome"], found["reason"], found["remedies"][-1] if "--store" in flags else None

    def holders(self, path: str, who: str = "USER user=eve@acme.com scopes=FEED") -> str:
        """Say who could send a POST that somebody with another scope cannot."""
        found = self.explained("--store", "--as", who, "curl", "-d", "x", f"{URL}{path}")
        assert found["reason"] == "scope_missing"
        return str(found["remedies"][-1])

    @property
    def log(self) -> str:
        """A log in which each token was allowed to search, and to do both, and one of a store that is gone."""
        lines = [
            {
                "decision": "allow",
                "reason": "allowed",
                "route": f"POST {path}",
                "method": "POST",
                "path": path,
                "time": 1_800_000_000,
            }
            | {"decision_id": "0" * 32, "auth_type": kind, "actor": f"token:{id_}", "token_id": id_, "user": "ana@acme.com"}
            for id_, kind in ((self.everybody["id"], "GLOBAL"), (self.ana["id"], "USER"), ("Z" * 12, "USER"))
            for path in ("/search", "/both")
        ]
        log = self.folder / "decisions.log"
        log.write_text("\n".join(map(json.dumps, lines)))
        return str(log)

    def replayed(self, *flags: str) -> tuple[int, int, int]:
        """Decide the log again: how many decisions are the same, how many are narrowed, and how many are not decidable."""
        done = self.run("replay", self.log, "--config", str(self.file), "--json", *flags)
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["decisions"] == 6
        return told["same"], told["narrowed"], told["undecidable"]


@pytest.fixture
def stored(tmp_path: Path, place: Place) -> Stored:
    """The tokens in a database of each kind."""
    return Stored(tmp_path, place)


def test_a_real_token_is_explained_by_its_store(stored: Stored) -> None:
    assert stored.sent(stored.ana["token"], "/search") == ("allow", "allowed", None)
    assert stored.sent(stored.everybody["token"], "/search")[1] == "act_as_missing"
    assert stored.sent(stored.everybody["token"], "/users")[1] == "credential_not_accepted"
    assert stored.sent(stored.revoked["token"], "/search")[1] == "token_revoked"
    token = stored.ana["token"]
    assert stored.sent(token[:-1] + ("a" if token[-1] != "a" else "b"), "/search")[1] == "token_checksum"
    missing = ("deny", "scope_missing", "no active token of the store has it")
    assert stored.sent(token, "/chat", "--store") == missing


def test_the_store_names_who_has_what_a_route_asks_for(stored: Stored) -> None:
    one, two = stored.everybody["id"], stored.ana["id"]
    of_two = {
        f"use one of the 2 tokens that have it: {first}, {second} (extauthz token show ID)"
        for first, second in ((one, two), (two, one))
    }
    assert stored.holders("/search") in of_two
    for path in ("/both", "/either", "/users"):
        assert stored.holders(path) == f"use the token that has it: {two} (extauthz token show ID)"
    assert stored.holders("/chat") == "no active token of the store has it"
    more = [created(stored.folder, "--permission", "GLOBAL", "--scope", "chat")["id"] for _ in range(6)]
    told = stored.holders("/chat")
    assert told.startswith("use one of the 6 tokens that have it: ")
    assert sum(each in told for each in more) == 5


def test_scopes_that_a_log_leaves_out_are_looked_up(stored: Stored) -> None:
    """Where the log alone leaves all open; a token that is not there stays open, and one that is revoked had its scopes."""
    assert stored.replayed() == (0, 0, 6)
    assert stored.replayed("--store") == (3, 1, 2)
    assert stored.run("token", "revoke", stored.ana["id"], "--yes", "--config", str(stored.file)).exit_code == 0
    assert stored.replayed("--store") == (3, 1, 2)


@pytest.fixture
def reader(tmp_path: Path, postgresql: PostgresServer) -> Iterator[Stored]:
    """The tokens on PostgreSQL, and a configuration of somebody who may only read."""
    with postgresql.database() as name, postgresql.login(name, f"role_{name}", PASSWORD):
        stored = Stored(tmp_path, Place("postgresql", postgresql.url(name)))
        (tmp_path / "password").write_text(PASSWORD)
        stored.write(postgresql.url(name, user=f"role_{name}"), store_password={"file": "password"})
        yield stored


def test_who_may_only_read_the_store_is_told_all_that(reader: Stored) -> None:
    assert reader.sent(reader.ana["token"], "/search")[0] == "allow"
    assert reader.holders("/either") == f"use the token that has it: {reader.ana['id']} (extauthz token show ID)"
    assert reader.replayed("--store") == (3, 1, 2)


def test_a_store_that_does_not_answer_here_is_not_one_that_the_sidecar_does_not_reach(reader: Stored) -> None:
    (reader.folder / "password").write_text("another")
    found = reader.explained("curl", "-d", "x", f"{URL}/search", "-H", f"Authorization: Bearer {reader.ana['token']}")
    assert found["reason"] == "store_unavailable"
    assert found["notes"] == [
        "The token was verified from here, which came to store_unavailable: a sidecar elsewhere may come to something else."
        " extauthz doctor says what is wrong here."
    ]
    words = ("--store", "--as", "USER user=eve@acme.com scopes=FEED", "curl", "-d", "x", f"{URL}/search")
    for command in (
        ("explain", "--config", str(reader.file), *words),
        ("replay", "--store", reader.log, "--config", str(reader.file)),
    ):
        done = reader.run(*command)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "the token store cannot be used (" in done.stderr
        assert "password authentication failed" in done.stderr
        assert PASSWORD not in done.stderr


def test_an_empty_database_is_told(tmp_path: Path, make_place: MakePlace) -> None:
    stored = Stored(tmp_path, make_place("postgresql"))
    stored.write(make_place("postgresql", migrated=False).where)
    found = stored.explained("curl", "-d", "x", f"{URL}/search", "-H", f"Authorization: Bearer {stored.ana['token']}")
    assert (found["outcome"], found["reason"]) == ("unknown", None)
    assert found["notes"] == ["The token was not verified: the token store is empty: run 'extauthz store migrate'"]
    done = stored.run("replay", "--store", stored.log, "--config", str(stored.file))
    assert (done.exit_code, "the token store is empty: run 'extauthz store migrate'" in done.stderr) == (1, True)
