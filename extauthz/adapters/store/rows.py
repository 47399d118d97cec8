"""The one reading of a stored row, whichever library fetched it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord, fingerprint
from extauthz.errors import StoreError

REVISION = "0003"
"""The schema that this release makes."""
SERVED = (REVISION, "0004")
"""Schemas that this release serves: its own and the next one, so that a store can be migrated before its sidecars are replaced.

The next one only adds: columns that may be NULL, tables, indexes. What an earlier release writes is good in it and means the same,
and a token that is read without what was added can do no more than with it. A revision without that promise leaves out a number.
"""

_MIGRATE = "run 'extauthz store migrate'"

PERMISSIONS = frozenset({"GLOBAL", "USER", "ANONYMOUS"})

NEEDING = """
SELECT id, count(*) OVER () FROM tokens WHERE pepper_id = {} AND revoked_at IS NULL AND expires_at > {}
ORDER BY created_at DESC, id DESC LIMIT 3
"""
"""The newest active tokens of a pepper, and how many there are; the placeholders are for the pepper's id and for now."""

COLUMNS = (
    "id",
    "description",
    "permission",
    "user",
    "scopes",
    "created_at",
    "created_by",
    "expires_at",
    "pepper_id",
    "digest",
    "revoked_at",
    "revoked_by",
)


def record(row: Sequence[Any]) -> TokenRecord:
    """Turn a row of COLUMNS into a record; raise ValueError for one that no release wrote."""
    fields = dict(zip(COLUMNS, row, strict=True))
    scopes = _scopes(fields["scopes"])
    texts = (*(fields[name] for name in ("id", "description", "created_by", "pepper_id")), *scopes)
    optional_texts = (fields["user"], fields["revoked_by"])
    times = (fields["created_at"], fields["expires_at"], 0 if fields["revoked_at"] is None else fields["revoked_at"])
    digest = fields["digest"]
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(text is None or isinstance(text, str) for text in optional_texts)
        or not all(type(moment) is int for moment in times)
        or not isinstance(digest, bytes)
        or fields["permission"] not in PERMISSIONS
    ):
        raise ValueError("a row that no release wrote")
    return TokenRecord(**fields | {"permission": AuthType(fields["permission"]), "scopes": frozenset(scopes)})


def _scopes(text: object) -> list[Any]:
    try:
        scopes = json.loads(text) if isinstance(text, str) else None
    except RecursionError:
        scopes = None
    if not isinstance(scopes, list):
        raise ValueError("a row that no release wrote")
    return scopes


def check_revision(revision: str | None) -> None:
    """Raise StoreError when this release does not serve a store of this schema."""
    if revision is None:
        raise StoreError(f"the token store is empty: {_MIGRATE}")
    if revision not in SERVED:
        # A store that somebody changed by hand may hold any value here.
        is_newer = str(revision) > SERVED[-1]
        hint = "use the release that ran 'extauthz store migrate' last, or a later one" if is_newer else _MIGRATE
        raise StoreError(f"the token store has schema {revision}, this release serves {' and '.join(SERVED)}: {hint}")


def check_peppers(digests: Mapping[str, str], peppers: Mapping[str, bytes], needing: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """Raise StoreError when a pepper is missing that active tokens need, or is not the one that tokens were made with.

    `digests` are the fingerprints that the store has, `needing` the rows of NEEDING for each pepper that is missing.
    """
    needs = "; ".join(_need(name, needing[name]) for name in sorted(needing) if needing[name])
    if needs:
        raise StoreError(f"tokens.peppers: {needs}: list it again, behind the newest; if it is lost, revoke what needs it")
    for name, expected in digests.items():
        if name in peppers and fingerprint(peppers[name]) != expected:
            raise StoreError(f"pepper {name!r} is not the one that the tokens in the store were made with: restore its file")


def _need(name: str, rows: Sequence[Sequence[Any]]) -> str:
    count, ids = rows[0][1], ", ".join(row[0] for row in rows)
    tokens = "1 active token needs" if count == 1 else f"{count} active tokens need"
    return f"{tokens} pepper {name!r}, which is not listed ({ids}{', …' if count > len(rows) else ''})"
