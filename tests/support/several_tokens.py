"""A folder with several tokens of every state, and when that is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord, fingerprint
from tests.support.command_line import created
from tests.support.postgresql import use

DAY = 86_400
NOW = int(time.time())  # noqa: TID251 - commands read the clock of the machine


@contextmanager
def opened(folder: Path) -> Iterator[SqlTokenStore]:
    """Open the store behind the back of the commands."""
    pepper = (folder / "data" / "pepper").read_bytes().strip()
    store = SqlTokenStore(folder / "data" / "tokens.db", audit=AuditKey.of("p1", pepper))
    yield store
    store.close()


PLAIN = TokenRecord(
    id="",
    description="d",
    permission=AuthType.USER,
    user="ana@acme.com",
    scopes=frozenset({"SEARCH"}),
    created_at=NOW - 100 * DAY,
    created_by="os:test",
    expires_at=NOW + 100 * DAY,
    pepper_id="p1",
    digest=bytes(32),
)


def stored(folder: Path, *records: dict[str, Any]) -> None:
    """Put tokens into the store that differ from PLAIN."""
    pepper = (folder / "data" / "pepper").read_bytes().strip()
    with opened(folder) as store:
        changed = [replace(PLAIN, **{**record, "id": record["id"] * 12}) for record in records]
        store.add_many(changed, {"p1": fingerprint(pepper)}, Change(NOW, "os:test"))


@pytest.fixture
def several(folder: Path) -> Path:
    """A folder with six tokens, "a" the oldest; all but the last are old."""
    made = created(folder, "--permission", "ANONYMOUS", "--scope", "CHAT")
    stored(
        folder,
        {"id": "a", "created_at": NOW - 300 * DAY, "expires_at": NOW + 10 * DAY},
        {"id": "b", "created_at": NOW - 200 * DAY, "permission": AuthType.GLOBAL, "user": None},
        {"id": "c", "created_at": NOW - 150 * DAY, "user": "bob@acme.com", "scopes": frozenset({"DOCPERMISSIONS"})},
        {"id": "d", "created_at": NOW - 150 * DAY, "expires_at": NOW - DAY},
        {"id": "e", "created_at": NOW - 150 * DAY, "revoked_at": NOW - DAY, "revoked_by": "os:test"},
    )
    with opened(folder) as store:
        use(store, {"a" * 12: (NOW - DAY, "10.0.0.0/24")})
    (folder / "new").write_text(made["id"])
    return folder
