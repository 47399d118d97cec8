"""What every use case works on: an open store, the rules for tokens, and the peppers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from extauthz.adapters.store.records import AuditKey, Sort
from extauthz.adapters.store.rows import check_peppers
from extauthz.adapters.store.transactions import Transactions
from extauthz.admin.token_requests import TokenRules

if TYPE_CHECKING:
    # Commands that only print their help load neither the store nor the schema.
    from extauthz.adapters.store.idempotency import EarlierRequest, IdempotencyKey
    from extauthz.adapters.store.records import (
        AuditExport,
        AuditFilter,
        AuditRow,
        Change,
        Position,
        Restored,
        StoredToken,
        StoreState,
        TokenCounts,
        TokenFilter,
    )
    from extauthz.adapters.store.replay import Advance, Checked
    from extauthz.adapters.store.settings_rows import SettingsKey, SettingsState, SettingsVersion
    from extauthz.config.loader import Configuration
    from extauthz.config.settings import TokensSection
    from extauthz.core.tokens import TokenRecord


class Store(Transactions, Protocol):
    """A token store as admins use it; every method raises StoreError."""

    audit: AuditKey | None

    @property
    def name(self) -> str: ...
    def get(self, token_id: str) -> StoredToken | None: ...
    def page(
        self,
        criteria: TokenFilter = ...,
        after: Position | None = None,
        limit: int = 100,
        *,
        before: Position | None = None,
        sort: Sort = ...,
    ) -> list[StoredToken]: ...
    def pepper_fingerprints(self) -> dict[str, str]: ...
    def needing(self, pepper_id: str, now: int) -> list[tuple[str, int]]: ...
    def status(self, now: int) -> StoreState: ...
    def token_counts(self, now: int, soon: int) -> tuple[TokenCounts, ...]: ...
    def migrate(self) -> str: ...
    def backup(self, path: Path) -> tuple[int, str]: ...
    def add_many(
        self,
        new: Sequence[TokenRecord],
        pepper_fingerprints: Mapping[str, str],
        change: Change,
        *,
        idempotency: IdempotencyKey | None = None,
    ) -> EarlierRequest | None: ...
    def revoke(
        self, ids: Iterable[str], why: str | None, change: Change, *, chain: bool = False, expected: StoredToken | None = None
    ) -> tuple[str, ...]: ...
    def revoke_user(self, user: str, why: str | None, change: Change) -> tuple[str, ...]: ...
    def rotate(
        self,
        token_id: str,
        successor: TokenRecord,
        expires_at: int,
        pepper_fingerprint: str,
        change: Change,
        *,
        expected: StoredToken | None = None,
    ) -> StoredToken: ...
    def accept_restore(self, export: AuditExport, change: Change) -> Restored: ...
    def audit_page(self, after: int = 0, limit: int = 100) -> list[AuditRow]: ...
    def newest_audit(
        self, filters: AuditFilter, *, below: int | None = None, above: int | None = None, limit: int = 100
    ) -> list[AuditRow]: ...
    def audit_actions(self) -> list[str]: ...
    def audit_head(self) -> tuple[int, str]: ...
    def check_audit(self, keys: Mapping[str, bytes], head: tuple[int, str] | None = None, advance: Advance = ...) -> Checked: ...
    def export_audit(self, after: int = 0) -> Iterator[str]: ...
    def settings(self) -> SettingsState: ...
    def settings_page(self, before: int | None = None, limit: int = 100) -> list[SettingsVersion]: ...
    def save_settings(self, values: Mapping[str, Any], expected: int, key: SettingsKey, change: Change) -> SettingsVersion: ...


@dataclass(frozen=True, slots=True)
class Administration:
    """One installation. `prefixes` are those of tokens that count; `read_peppers` returns the peppers, the newest first.

    It is called only where a pepper is needed, and raises ConfigurationError.
    """

    store: Store
    rules: TokenRules
    prefixes: frozenset[str]
    read_peppers: Callable[[], Mapping[str, bytes]]

    def unlocked(self, at: int, *, to_revoke: bool = False) -> Mapping[str, bytes]:
        """Let the store be changed and return the peppers.

        Raises StoreError when a pepper is not the one that the store knows, or when one is missing that active tokens need at this
        time; `to_revoke` them it may be missing.
        """
        fingerprints = self.store.pepper_fingerprints()
        peppers = self.read_peppers()
        missing = () if to_revoke else fingerprints.keys() - peppers.keys()
        check_peppers(fingerprints, peppers, {name: self.store.needing(name, at) for name in missing})
        self.store.audit = AuditKey.of(*next(iter(peppers.items())))
        return peppers


def rules_of(configuration: Configuration, tokens: TokensSection) -> TokenRules:
    """Return what requests for tokens are measured by."""
    scopes = frozenset(configuration.settings.scopes)
    return TokenRules(tokens.prefix, scopes, tokens.max_lifetime, configuration.policy.act_as)


def prefixes_of(tokens: TokensSection) -> frozenset[str]:
    """Return the prefixes of tokens that count."""
    return frozenset({tokens.prefix, *tokens.accept_prefixes})


def audit_keys(peppers: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the keys of the audit's chain by pepper."""
    return {name: AuditKey.of(name, pepper).key for name, pepper in peppers.items()}
