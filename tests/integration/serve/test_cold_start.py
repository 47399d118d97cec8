"""What the documents promise for a store on PostgreSQL that gives less than all, from a cold start.

For SQLite: test_store_read_only.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.postgresql import PostgresServer
from tests.support.sidecar import PATIENCE, Sidecar, sidecar
from tests.support.world import bearer

__all__ = ["sidecar"]

pytest_plugins = ["tests.support.postgresql"]
pytestmark = pytest.mark.cold_start


@pytest.fixture
def role(postgresql: PostgresServer) -> Iterator[tuple[str, str]]:
    """A database, and a role that may read it and nothing else."""
    with postgresql.database() as name, postgresql.login(name, f"role_{name}", "s3cret"):
        yield name, f"role_{name}"


def issued(sidecar: Sidecar, address: str) -> str:
    """Make a token as somebody who may."""
    sidecar.settings["tokens"] |= {"store": address, "store_password": {"file": "password"}}
    (sidecar.folder / "password").write_text("s3cret")
    sidecar.write()
    return sidecar.token()


def reason(sidecar: Sidecar, text: str) -> str:
    """Return why a token is refused; "" when it is not."""
    answer = sidecar.check(bearer(text))
    return "" if answer.status.code == 0 else str(json.loads(answer.denied_response.body)["reason"])


def test_a_role_that_may_only_read_serves_and_keeps_no_uses(
    sidecar: Sidecar, postgresql: PostgresServer, role: tuple[str, str]
) -> None:
    name, user = role
    text = issued(sidecar, postgresql.url(name))
    sidecar.settings["tokens"]["store"] = postgresql.url(name, user=user)
    sidecar.write()
    sidecar.start()
    assert reason(sidecar, text) == ""
    with psycopg.connect(postgresql.url(name), autocommit=True) as owner:
        owner.execute("UPDATE tokens SET revoked_at = 1, revoked_by = 'root'")
        owner.execute("UPDATE store_state SET head = head + 1")
        owner.execute("INSERT INTO changes SELECT head, %s, 'revoked', 0 FROM store_state", (text.split("_")[1],))
    deadline = time.monotonic() + PATIENCE
    while not reason(sidecar, text):
        assert time.monotonic() < deadline
    assert sidecar.stop() == 0
    log = sidecar.logs[1].read_text()
    assert log.count("uses of tokens cannot be written") == 1
    assert "lost" not in log.replace("uses of tokens are lost", "")


def test_a_role_that_may_not_read_stops_the_start_with_a_hint(
    sidecar: Sidecar, postgresql: PostgresServer, role: tuple[str, str]
) -> None:
    name, user = role
    issued(sidecar, postgresql.url(name))
    with psycopg.connect(postgresql.url(name), autocommit=True) as owner:
        owner.execute(sql.SQL("REVOKE SELECT ON tokens FROM {}").format(sql.Identifier(user)))
    sidecar.settings["tokens"]["store"] = postgresql.url(name, user=user)
    sidecar.write()
    done = sidecar.refused()
    assert done.returncode == 1
    assert re.search("may not be read .*grant it, see 'extauthz store migrate'", done.stderr)
    assert "s3cret" not in done.stderr + done.stdout


def test_a_database_that_is_away_stops_no_start_and_is_found_when_it_comes(
    sidecar: Sidecar, postgresql: PostgresServer, tmp_path: Path
) -> None:
    with postgresql.database() as name:
        text = issued(sidecar, postgresql.url(name))
        place = tmp_path / "socket"
        sidecar.settings["tokens"]["store"] = postgresql.url(name, folder=place)
        sidecar.write()
        sidecar.start()
        assert reason(sidecar, text) == "store_unavailable"
        place.symlink_to(postgresql.socket_folder)
        deadline = time.monotonic() + PATIENCE
        while said := reason(sidecar, text):
            assert said == "store_unavailable"
            assert time.monotonic() < deadline
        assert sidecar.stop() == 0
    log = sidecar.logs[1].read_text()
    assert (log.count('"token store lost"'), log.count('"token store back"')) == (1, 1)
