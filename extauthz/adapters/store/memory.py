"""A token store in memory: for tests, and for trying a configuration without a database."""

from __future__ import annotations

from dataclasses import replace

from extauthz.adapters.store.rows import StoreError
from extauthz.core.tokens import TokenRecord


class MemoryTokenStore:
    """Behaves like the stores on a database; nothing outlives the process."""

    def __init__(self) -> None:
        """Start empty."""
        self._records: dict[str, TokenRecord] = {}
        self._peppers: dict[str, str] = {}
        self._changes = 0

    def find(self, token_id: str) -> TokenRecord | None:
        """Return the record of an id."""
        return self._records.get(token_id)

    get = find

    def version(self) -> object:
        """Return the number of changes."""
        return self._changes

    def add(self, new: TokenRecord, pepper_fingerprint: str) -> None:
        """Insert a token; refuse a known id and a pepper that is not the one known by this id."""
        if self._peppers.get(new.pepper_id, pepper_fingerprint) != pepper_fingerprint:
            raise StoreError(f"pepper {new.pepper_id!r} is not the one that the tokens were made with")
        if new.id in self._records:
            raise StoreError(f"token {new.id} exists already")
        self._peppers[new.pepper_id] = pepper_fingerprint
        self._records[new.id] = new
        self._changes += 1

    def list_tokens(self) -> list[TokenRecord]:
        """Return all tokens, the newest first."""
        return sorted(self._records.values(), key=lambda token: (-token.created_at, token.id))

    def revoke(self, token_id: str, *, at: int, by: str) -> bool:
        """Revoke a token; False when it is unknown or was revoked before."""
        token = self._records.get(token_id)
        if token is None or token.revoked_at is not None:
            return False
        self._records[token_id] = replace(token, revoked_at=at, revoked_by=by)
        self._changes += 1
        return True

    def pepper_fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each pepper that a token was made with."""
        return dict(self._peppers)

    def close(self) -> None:
        """Do nothing."""
